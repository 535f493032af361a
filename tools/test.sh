#!/usr/bin/env bash
# Everything `make test` runs, from an empty cache. All steps run, so that one report names all that is red.
set -uo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
export RESALIGN_CACHE="$PWD/_build/test-cache"
rm -rf "$RESALIGN_CACHE"
mkdir -p "$RESALIGN_CACHE"

failed=()
step() { # step NAME COMMAND...
    local name=$1 start=$SECONDS
    shift
    printf '\n== %s\n' "$name"
    if "$@"; then echo "== $name: passed after $((SECONDS - start)) s"; else
        failed+=("$name")
        echo "== $name: FAILED after $((SECONDS - start)) s"
    fi
}

step "pages from the committed outputs" $python -m tools.build_book
step "stored notebooks" $python -m tools.run_notebooks --check
step "unit tests" $python -m pytest tests -n 2 --dist loadscope --ignore tests/book
step "pages" $python -m pytest tests/book -n 2 --dist load
if compgen -G 'notebooks/*.ipynb' >/dev/null; then
    # loadscope: the cells of one notebook must stay in one process; the report is what `make status` records
    step "notebooks run again and compared" \
        $python -m pytest --nbval --nbval-cell-timeout 1800 -n 2 --dist loadscope --junitxml _build/nbval.xml \
            notebooks book/first_figure.ipynb
else
    printf '\n== no notebooks yet: nothing to run again\n'
fi

printf '\n'
if ((${#failed[@]})); then
    printf 'FAILED: %s\n' "${failed[@]}"
    exit 1
fi
echo "All passed after $SECONDS s"
