#!/bin/bash
# A GPU for eight minutes: speeds and traces first, then a training run to the end of the time. From the repository's
# root, with .pack/crops.zip of pack.py:
#
#     OUT=DIR bash experiments/gpu/minutes.sh
#
# END: seconds from now at which the training ends; TRAIN=0: no training. JOBS: of speed.py, READY and BUDGET its
# seconds; jobs that DONE, a JSON of an earlier call, holds are left out. BEGIN: first states of ahead.py. WHEELS: a
# folder with what pip lacks there. CACHE: compiled programs, and which algorithm was fastest for each convolution
# and product; the latter come back in xla.tar, to be unpacked in CACHE/xla for the next machine of this kind, which
# then need not time them again. A machine that is taken away early has left speed.json and xla.tar.
set -u
W=$(mktemp -d) END=${END:-420} JOBS=${JOBS:-few} PYTHON=${PYTHON:-python3} CACHE=${CACHE:-.pack/cache}
mkdir -p "$CACHE"
export JAXDOG_SPEED_CACHE=$CACHE
export PYTHONUNBUFFERED=1
if [ -n "${WHEELS:-}" ]; then
  "$PYTHON" -m pip install -q --no-index --no-deps --target "$W/site" "$WHEELS"/*.whl || exit 1
  export PYTHONPATH=$W/site
fi
"$PYTHON" experiments/gpu/speed.py --out "$W" --jobs "$JOBS" --ready "${READY:-170}" --budget "${BUDGET:-230}" \
  --rounds 2 --seconds 0.5 --compiling 2 --beside 30 ${DONE:+--done "$DONE"} ${BEGIN:+--begin "$BEGIN"} \
  >"$W/speed.log" 2>&1 &
SPEED=$!
kept() { tar cf "$OUT/xla.tar" -C "$CACHE/xla" xla_gpu_per_fusion_autotune_cache_dir; }
while kill -0 $SPEED; do
  sleep 3
  cp "$W/speed.json" "$OUT/"
  kept
done 2>/dev/null
if [ "${TRAIN:-1}" != 0 ]; then
  MINUTES=$("$PYTHON" -c "print(($END - $SECONDS - 25) / 60)")
  HOURS=$("$PYTHON" -c "print($MINUTES / 60)")
  rule() { # both rates fall over the time that is left, whatever the speed
    echo "optimizer.$1.schedule={\"name\":\"clock_cosine\",\"learning_rate\":$2,\"hours\":$HOURS,"\
"\"first_rate\":$2,\"first_updates\":0}"
  }
  timeout -k 20 $((END + 35 - SECONDS)) "$PYTHON" experiments/record/run.py --arm record_biggan --steps 60000 \
    --now "$MINUTES" --evaluations 0 --crops .pack/crops.zip --runs "$W/runs" --out "$W/train" --tracks 0 1 --half \
    --set 'dtype="bfloat16"' "data.cache_dir=\"$CACHE\"" generator.channels=32 discriminator.channels=64 "$(rule g 3e-4)" "$(rule d 6e-4)" \
    >"$W/train.log" 2>&1
  echo "training ended with $? after $SECONDS s"
fi
tail -n 20 "$W"/*.log
find "$W/logs" -size +200k \( -name "*.txt" -o -name "*.pb" \) -exec gzip -1 {} \;
kept
cd "$W" && rm -rf site && tar cf - --ignore-failed-read * | split -b 15900000 - "$OUT/all.tar."
