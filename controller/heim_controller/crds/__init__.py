"""Our own kinds as CustomResourceDefinitions, and what writes them into the chart."""
