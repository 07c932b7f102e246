"""tuspyserver as an ASGI app. Runs in a virtual environment of its own, never in ours."""

import importlib
import os

# Not import statements: this environment's type checker has neither package.
fastapi = importlib.import_module("fastapi")
tuspyserver = importlib.import_module("tuspyserver")

app = fastapi.FastAPI()
app.include_router(
    tuspyserver.create_tus_router(prefix="files", files_dir=os.environ["BENCH_FILES_DIR"])
)
