"""The libraries underneath draw bars and print advice of their own; the public functions print nothing."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Silence diffusers and transformers (bars, log lines, warnings), and leave them as they were; also a decorator."""
    from diffusers.utils import logging
    from transformers.utils import logging as transformers_logging

    libraries = [
        (library, library.get_verbosity(), library.is_progress_bar_enabled())
        for library in (logging, transformers_logging)
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(torch|diffusers|transformers|torchsde|huggingface_hub)(\.|$)")
        try:
            for library, _, _ in libraries:
                library.disable_progress_bar()
                library.set_verbosity_error()
            yield
        finally:
            for library, verbosity, bars in libraries:
                library.set_verbosity(verbosity)
                if bars:
                    library.enable_progress_bar()
