"""`python -m heim_controller.crds [DIRECTORY]` writes the chart's templates with our kinds."""

import sys
from pathlib import Path

from heim_controller.crds.manifests import write

for path in write(Path(sys.argv[1] if len(sys.argv) > 1 else "charts/heim/templates/crds")):
    sys.stdout.write(f"{path}\n")
