"""`python -m heim_controller.crds [CHART]` writes our kinds into charts/heim, or into CHART."""

import json
import sys
from pathlib import Path

from heim_controller.crds.manifests import with_proxy_spec, write

chart = Path(sys.argv[1] if len(sys.argv) > 1 else "charts/heim")
for path in write(chart / "templates" / "crds"):
    sys.stdout.write(f"{path}\n")
values = chart / "values.schema.json"
schema = with_proxy_spec(json.loads(values.read_text("utf-8")))
values.write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
sys.stdout.write(f"{values}\n")
