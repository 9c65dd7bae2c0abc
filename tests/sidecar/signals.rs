//! SIGTERM, SIGINT and the second of them; PID 1; what `tollgate wait` becomes.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::aws::Aws;
use crate::pod::{PATIENCE, Pod, poll, signal};

#[test]
fn sigterm_and_sigint_drain_and_exit_with_0() {
    let aws = Aws::start();
    for name in ["TERM", "INT"] {
        let pod = Pod::new(&aws);
        let mut sidecar = pod.start();
        sidecar.answers("/readyz", 200);
        sidecar.signal(name);
        assert_eq!(sidecar.ends(), 0, "{}", pod.log());
        assert_eq!(pod.status().unwrap()["state"], "entitled");
    }
}

#[test]
fn sigterm_while_pending_exits_with_0_at_once() {
    let aws = Aws::start();
    aws.delay("RegisterUsage", PATIENCE, 100);
    let pod = Pod::new(&aws);
    let mut sidecar = pod.start();
    sidecar.reaches("pending");
    poll(|| (!aws.calls("RegisterUsage").is_empty()).then_some(())).expect("it asks");
    sidecar.signal("TERM");
    assert_eq!(sidecar.ends(), 0);
}

#[test]
fn sigterm_while_the_ecs_agent_hangs_exits_with_0_at_once() {
    let aws = Aws::start();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let pod = Pod::new(&aws).with(
        "ECS_CONTAINER_METADATA_URI_V4",
        &format!("http://{}/v4/x", silent.local_addr().unwrap()),
    );
    let mut sidecar = pod.start();
    sidecar.answers("/livez", 200);
    sidecar.signal("TERM");
    assert_eq!(sidecar.ends(), 0);
}

/// `unshare` makes the sidecar PID 1 of a namespace of its own, where signals have no default action.
#[test]
fn signals_work_as_pid_1() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let mut inner = pod.command(&["run"]);
    inner.stdout(Stdio::null()).stderr(Stdio::null());
    let mut outer = Command::new("unshare");
    outer
        .args(["--fork", "--pid", "--kill-child"])
        .arg(inner.get_program())
        .arg("run");
    outer.env_clear().envs(
        inner
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    outer.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    outer
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut outer = outer.spawn().expect("unshare is part of util-linux");
    poll(|| pod.get("/readyz").filter(|(code, _)| *code == 200)).expect("it becomes ready");
    let children = format!("/proc/{0}/task/{0}/children", outer.id());
    let child: u32 = std::fs::read_to_string(children)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    signal(child, "TERM");
    let ended = poll(|| outer.try_wait().unwrap()).expect("it ends");
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn wait_becomes_the_main_program_with_its_exit_code_and_signals() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    pod.start().reaches("entitled");
    assert_eq!(pod.run(&["wait", "--", "/bin/sh", "-c", "exit 42"]).0, 42);
    let (code, output) = pod.run(&["wait", "--", "/bin/echo", "--flag", "a b"]);
    assert_eq!((code, output.as_str()), (0, "--flag a b\n"));
    let mut child = pod
        .command(&[
            "wait",
            "--",
            "/bin/sh",
            "-c",
            "trap 'exit 7' TERM; : > \"$0\"; while :; do sleep 0.02; done",
        ])
        .arg(pod.path("started"))
        .spawn()
        .unwrap();
    poll(|| pod.path("started").exists().then_some(())).expect("the program starts");
    signal(child.id(), "TERM");
    assert_eq!(
        poll(|| child.try_wait().unwrap()).expect("it ends").code(),
        Some(7)
    );
    let (code, output) = pod.run(&["wait", "--", "/nonexistent/program"]);
    assert_eq!(code, 78);
    assert!(output.contains("/nonexistent/program"), "{output}");
}

#[test]
fn wait_holds_the_program_back_until_the_proof_is_there() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let touched = pod.path("started").display().to_string();
    let mut waiting = pod
        .command(&["wait", "--timeout", "60s", "--", "/bin/touch", &touched])
        .spawn()
        .unwrap();
    aws.fault("RegisterUsage", "internal-error", 10_000);
    let mut sidecar = pod.start();
    sidecar.reaches("pending");
    poll(|| (aws.calls("RegisterUsage").len() > 1).then_some(())).expect("it asks");
    assert!(waiting.try_wait().unwrap().is_none());
    assert!(!pod.path("started").exists());
    aws.clear_faults();
    let ended = poll(|| waiting.try_wait().unwrap()).expect("the proof comes");
    assert!(ended.success() && pod.path("started").exists());
}

#[test]
fn wait_gives_up_in_time() {
    let pod = Pod::new(&Aws::start());
    let started = std::time::Instant::now();
    let (code, output) = pod.run(&["wait", "--timeout", "300ms"]);
    assert_eq!(code, 75);
    assert!(output.contains("there is no status file"), "{output}");
    assert!(started.elapsed() >= Duration::from_millis(300));
}
