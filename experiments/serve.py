"""Serves a page on this machine on which one tries a trained run on images.

    python -m experiments.serve --workdir=RUN --port=P [--public_url=https://HOST/PATH/]

Drop an image on the page: class, mask with a slider for its threshold, entropies, flags, and what the classifier saw.
Only this machine reaches the page (127.0.0.1), nothing is stored, and nothing is asked from elsewhere. --port=0 chooses
a free port; the address is printed. --public_url is the address behind a proxy of another machine or port, which has to
keep out whoever should not see the page; an SSH tunnel needs none. Ctrl-C ends it.
"""

from absl import flags

from minmax_jax.base.errors import naming
from minmax_jax.base.paths import local_path

from . import program

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; model_card.json and model.safetensors are read.")
_PORT = flags.DEFINE_integer("port", 8000, "Port of this machine; 0 chooses a free one.")
_MAX_MEGABYTES = flags.DEFINE_float("max_megabytes", 20.0, "Maximum size of an uploaded file, megabytes.")
_MAX_MEGAPIXELS = flags.DEFINE_float("max_megapixels", 16.0, "Maximum size of an uploaded image, megapixels.")
_MAX_PIXELS = flags.DEFINE_integer(
    "max_pixels",
    1 << 20,
    "Number of pixels to which larger images are reduced for the prediction, so that it takes seconds; 0: not reduced.",
)
_PUBLIC_URL = flags.DEFINE_string(
    "public_url", "", "Address of the page behind a proxy, such as https://hub.example.org/user/me/proxy/8000/."
)
flags.mark_flag_as_required("workdir")


def main() -> None:
    from minmax_jax.serve import server

    server.check_packages()
    program.start()
    from minmax_jax.runs import predictor
    from minmax_jax.runs.folder import results
    from minmax_jax.serve import answers, application, guard

    workdir = local_path("--workdir", _WORKDIR.value)
    with naming("--"):
        limits = answers.Limits(
            max_megabytes=_MAX_MEGABYTES.value, max_megapixels=_MAX_MEGAPIXELS.value, max_pixels=_MAX_PIXELS.value
        )
        public_url = guard.parse_url(_PUBLIC_URL.value)
        listener = server.listen(_PORT.value)
    port = listener.getsockname()[1]
    app = application.create(
        predictor.load(workdir),
        name=workdir.resolve().name,
        results=results.read(workdir),
        limits=limits,
        port=port,
        public_url=public_url,
    )
    print(f"The page of {workdir}: http://{server.ADDRESS}:{port}/  Ctrl-C ends it.", flush=True)
    if public_url:
        print(f"Behind its proxy: {public_url.origin}{public_url.path}/", flush=True)
    server.run(listener, app)


def run() -> None:
    """Entry point."""
    program.run(main)


if __name__ == "__main__":
    run()
