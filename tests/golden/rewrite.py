"""Rewrite the golden values, where bytes or run ids are meant to change: python tests/golden/rewrite.py [--artifacts]

--artifacts also makes the committed artifacts again. Those of a format version that users have must stay as they are:
it is for a new version, whose folder is a new one.
"""

import argparse
import json

import golden_artifacts
import golden_models
import golden_record


def main() -> None:
    """Write the files beside this one, and name them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--artifacts", action="store_true", help="make the committed artifacts again, too")
    again = parser.parse_args().artifacts
    for model in golden_models.GOLDEN:
        path = golden_record.stored(model)
        path.write_text(json.dumps(golden_record.record(model), indent=1, sort_keys=True) + "\n")
        print(path)
    if again:
        print(golden_artifacts.make())


if __name__ == "__main__":
    main()
