"""What is not configured is not imported: drivers take half a second and 44 MiB."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
OPEN_AND_CLOSE = """
import asyncio, sys
from tus_server import Settings, create_app

async def main():
    app = create_app(Settings(data_dir=sys.argv[1]))
    async with app.lifespan():
        pass

asyncio.run(main())
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
ASK = """
        import httpx
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
        async with client:
            reply = await client.get("/api/uploads", headers={"Authorization": "Bearer TOKEN"})
        assert reply.status_code == 200, reply.text
"""
DRIVERS = {"asyncpg", "aioboto3", "aiobotocore", "boto3", "botocore", "aiohttp"}


def imported(code: str, *arguments: str) -> set[str]:
    shown = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(shown.stdout.split())


def test_the_embedded_application_imports_no_driver_and_no_command_line(tmp_path: Path) -> None:
    modules = imported(OPEN_AND_CLOSE, str(tmp_path))

    assert "tus_server" in modules
    assert not modules & (DRIVERS | {"typer", "tusclient", "requests"})


def test_who_asks_for_no_api_needs_no_fastapi(tmp_path: Path) -> None:
    token = "a-token-of-a-test-that-is-long-enough"
    asks = OPEN_AND_CLOSE.replace("pass", ASK.replace("TOKEN", token))
    asks = asks.replace("data_dir=", f"api_token={token!r}, data_dir=")

    assert "fastapi" not in imported(OPEN_AND_CLOSE, str(tmp_path))
    assert "fastapi" in imported(asks, str(tmp_path))
    off = asks.replace("api_token=", 'api="off", api_token=').replace("== 200", "== 404")
    assert "fastapi" not in imported(off, str(tmp_path))


@pytest.mark.parametrize("command", ["--help", "serve --help", "uploads --help", "migrate --help"])
def test_help_imports_no_server(command: str) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['tus-server', *{command.split()!r}]\n"
        "from tus_server.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )

    modules = imported(code)

    assert not modules & (DRIVERS | {"starlette", "uvicorn", "pydantic_settings"})
