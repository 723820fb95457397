"""heim-controller turns Ingress objects and CRDs into configuration. Arrives with Kubernetes."""
