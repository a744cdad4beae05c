"""The console command: `minmax-jax COMMAND --FLAGS`, with the `COMMANDS` below."""

import importlib
import sys

COMMANDS = {
    "train": "trains and evaluates a configuration",
    "evaluate": "evaluates the model of a run again, or the heat maps of any other system",
    "faithfulness": "tests whether the masks of a run show what its model looks at",
    "predict": "predicts class and mask of images",
    "serve": "shows a page on this machine on which one tries a run on images",
    "refine": "gives a trained run masks that follow the image",
    "export": "writes the model of a run as one file, StableHLO or ONNX",
    "report": "writes a page about a run, or a comparison of several",
    "prepare-data": "checks a dataset and writes it in the form that training reads",
    "convert-weights": "converts a file of weights to safetensors",
}


def main() -> None:
    """Runs the program that the first argument names."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command not in COMMANDS:
        is_help = command in ("-h", "--help", "help")
        listed = "\n".join(f"  {name:<17}{text}" for name, text in COMMANDS.items())
        usage = f"Usage: minmax-jax COMMAND --FLAGS\n{listed}\n`minmax-jax COMMAND --help` lists the flags."
        if is_help:
            print(usage)
            return
        sys.exit(f"Error: {command!r} is not a command.\n{usage}" if command else usage)
    sys.argv = [f"minmax-jax {command}", *sys.argv[2:]]
    name = f"{__package__}.{command.replace('-', '_')}"
    sys.modules.pop(name, None)  # its flags were removed when it ran before in this process, and are defined again
    importlib.import_module(name).run()


if __name__ == "__main__":
    main()
