#!/bin/bash
# pytest-xdist 3.8.0 under pytest 9.2.0: tests of one `xdist_group` run in several workers; under 9.0.2 they do not.
#
# Guess: with --dist=loadgroup all tests that carry @pytest.mark.xdist_group("a") run in one worker, whatever the version of
# pytest, so that an expensive fixture of theirs is made once.
# Seen: with pytest 9.2.0 the mark changes nothing and no warning says so: eight tests of a group run in two workers, and the
# fixture is made twice (pytest-xdist issue 1386).
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
cat > test_group.py <<'PY'
import os
import time

import pytest


@pytest.mark.xdist_group("a")
@pytest.mark.parametrize("number", range(8))
def test_of_a_group(number):
    time.sleep(0.2)
    with open("workers", "a") as file:
        file.write(os.environ["PYTEST_XDIST_WORKER"] + "\n")
PY
for version in 9.0.2 9.2.0; do
  venv/bin/pip install --quiet "pytest==$version" pytest-xdist==3.8.0
  rm -f workers
  venv/bin/python -W error -m pytest -q -n 2 --dist=loadgroup -p no:cacheprovider > log
  count=$(sort -u workers | wc -l)
  echo "pytest $version: $(tail -n 1 log), in $count worker(s)"
  [ "$version:$count" = 9.0.2:1 ] || [ "$version:$count" = 9.2.0:2 ]
done
