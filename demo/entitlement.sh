# From the first question to the main program, and what a buyer without a subscription sees. Sourced by demo/run.

say "A buyer with a subscription; at first AWS does not answer"
admin POST faults '{"operation":"RegisterUsage","kind":"internal-error"}' >"$work/faults"
export TOLLGATE_PRODUCT_CODE=prod-demo TOLLGATE_PUBLIC_KEYS=1=$work/keys/prod-demo/1.pem TOLLGATE_STATE_DIR=$work/state-1
show tollgate run
start "$bin/tollgate" run 2>"$work/sidecar.log"
sidecar=$pid
until_true has_state pending
until_true grep -q "no decision yet" "$work/sidecar.log"
quote <"$work/sidecar.log"
show tollgate healthcheck
"$bin/tollgate" healthcheck 2>&1 | quote || true

say "The main program waits"
show 'tollgate wait -- sh -c "echo the main program runs"'
start "$bin/tollgate" wait --timeout 60s -- sh -c 'echo "   | the main program runs, as process $$"'
main=$pid

say "AWS answers again"
admin DELETE faults >"$work/faults"
wait "$main"
show cat status.json
quote <"$TOLLGATE_STATUS_FILE"
show tollgate verify
"$bin/tollgate" verify | quote
show tollgate healthcheck
"$bin/tollgate" healthcheck | quote
kill -TERM "$sidecar"
wait "$sidecar"
echo "   the sidecar drained and ended with $?"

say "A restart in the same pod asks nobody"
admin DELETE calls >"$work/calls"
start "$bin/tollgate" run 2>"$work/sidecar.log"
sidecar=$pid
until_true "$bin/tollgate" healthcheck
echo "   | calls to AWS: $(admin GET calls)"
kill -TERM "$sidecar"
wait "$sidecar"

say "A buyer without a subscription"
export TOLLGATE_PRODUCT_CODE=prod-unsubscribed TOLLGATE_PUBLIC_KEYS=1=$work/keys/prod-unsubscribed/1.pem TOLLGATE_STATE_DIR=$work/state-2
show tollgate run
code=0
"$bin/tollgate" run 2>"$work/sidecar.log" || code=$?
quote 400 <"$work/sidecar.log"
echo "   the sidecar ended with $code"
show 'tollgate wait -- sh -c "echo never"'
code=0
"$bin/tollgate" wait --timeout 5s -- sh -c 'echo never' 2>&1 | quote 400 || code=${PIPESTATUS[0]}
echo "   wait ended with ${code}, and the main program never ran"
