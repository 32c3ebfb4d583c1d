#!/bin/bash
# Everything for a few minutes of a rented GPU: speeds first, then a training run to the end of the time. From the
# repository's root, with .pack/crops.zip of pack.py:
#
#     OUT=DIR bash experiments/gpu/minutes.sh
#
# END    seconds from now at which the training ends; TRAIN=0: no training
# JOBS   of speed.py, READY and BUDGET its seconds; DONE: speed.json of an earlier call, whose jobs are left out
# BEGIN  initial states compiled by ahead.py
# WHEELS a folder with wheels that the machine lacks
# CACHE  compiled programs, and which algorithm XLA found fastest for each convolution and product. The latter come back
#        in xla.tar: unpack it in CACHE/xla, and the next machine of this kind need not time them again.
#
# A machine that is taken away early has left speed.json and xla.tar in OUT.
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
save_autotuning() { tar cf "$OUT/xla.tar" -C "$CACHE/xla" xla_gpu_per_fusion_autotune_cache_dir; }
while kill -0 $SPEED; do
  sleep 3
  cp "$W/speed.json" "$OUT/"
  save_autotuning
done 2>/dev/null
if [ "${TRAIN:-1}" != 0 ]; then
  MINUTES=$("$PYTHON" -c "print(($END - $SECONDS - 25) / 60)")
  HOURS=$("$PYTHON" -c "print($MINUTES / 60)")
  # Both learning rates fall over the time that is left, whatever the speed: arguments that set a player's schedule.
  schedule() {
    echo "optimizer.$1.learning_rate=$2"
    echo "optimizer.$1.schedule={\"name\":\"wallclock_cosine\",\"hours\":$HOURS,\"first_rate\":$2,\"first_updates\":0}"
  }
  timeout -k 20 $((END + 35 - SECONDS)) "$PYTHON" experiments/record/run.py --arm record_biggan --steps 60000 \
    --now "$MINUTES" --evaluations 0 --crops .pack/crops.zip --runs "$W/runs" --out "$W/train" --ema_index 0 1 --half \
    --set 'dtype="bfloat16"' "data.cache_dir=\"$CACHE\"" generator.channels=32 discriminator.channels=64 \
    $(schedule g 3e-4) $(schedule d 6e-4) \
    >"$W/train.log" 2>&1
  echo "training ended with $? after $SECONDS s"
fi
tail -n 20 "$W"/*.log
find "$W/logs" -size +200k \( -name "*.txt" -o -name "*.pb" \) -exec gzip -1 {} \;
save_autotuning
cd "$W" && rm -rf site && tar cf - --ignore-failed-read * | split -b 15900000 - "$OUT/all.tar."
