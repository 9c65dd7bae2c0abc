"""How large the binary is, how fast it gets ready, and how much memory it then has: beside a boto3 script that only asks.

Prints the machine and every figure; nothing here passes or fails. Ratios within one run are what carries over to other machines.
"""

import contextlib
import json
import os
import pathlib
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

RUNS = 30
BIN = pathlib.Path("target/release")
GIVE_UP_SECONDS = 10

BOTO3_SCRIPT = """
import boto3
boto3.client("meteringmarketplace").register_usage(ProductCode="prod-demo", PublicKeyVersion=1, Nonce="n")
"""


@contextlib.contextmanager
def simulator(keys):
    process = subprocess.Popen(
        [BIN / "marketplace-simulator", "--listen", "127.0.0.1:0", "--keys-dir", keys],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )
    try:
        yield json.loads(process.stdout.readline())["listening"]
    finally:
        process.terminate()
        process.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(url, work):
    return {
        "AWS_ENDPOINT_URL_MARKETPLACE_METERING": url,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "SIMULATORKEY1",
        "AWS_SECRET_ACCESS_KEY": "simulator-secret-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "POD_UID": "bench-pod",
        "TOLLGATE_PRODUCT_CODE": "prod-demo",
        "TOLLGATE_PUBLIC_KEYS": f"1={work}/keys/1.pem",
    }


def is_ready(port):
    try:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def start_until_ready(url, work, run):
    """Milliseconds from the start of the process to the first 200 of /readyz, and its memory then, in MiB."""
    port = free_port()
    variables = environment(url, work) | {
        "TOLLGATE_STATE_DIR": f"{work}/state-{run}",
        "TOLLGATE_STATUS_FILE": f"{work}/run-{run}/status.json",
        "TOLLGATE_HEALTH_LISTEN": f"127.0.0.1:{port}",
        "TOLLGATE_LOG": "error",
    }
    started = time.perf_counter()
    pid = os.posix_spawn(BIN / "tollgate", ["tollgate", "run"], variables)
    try:
        while not is_ready(port):
            if time.perf_counter() - started > GIVE_UP_SECONDS:
                sys.exit("the sidecar never became ready")
            time.sleep(0.0002)
        took_ms = (time.perf_counter() - started) * 1000
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
    resident_kib = int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1])
    return took_ms, resident_kib / 1024


def boto3_call(url, work):
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", BOTO3_SCRIPT], env=environment(url, work), check=True)
    return (time.perf_counter() - started) * 1000


def spread(values, unit):
    return f"median {statistics.median(values):.1f} {unit} (min {min(values):.1f}, max {max(values):.1f}, n={len(values)})"


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown CPU")
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}"


def main():
    work = tempfile.mkdtemp()
    try:
        with simulator(f"{work}/keys") as url:
            start_until_ready(url, work, "warm-up")
            boto3_call(url, work)
            ready = [start_until_ready(url, work, run) for run in range(RUNS)]
            boto3 = [boto3_call(url, work) for _ in range(RUNS // 3)]
    finally:
        shutil.rmtree(work)
    took = [ms for ms, _ in ready]
    print(f"machine                    {machine()}")
    print(f"binary, stripped           {(BIN / 'tollgate').stat().st_size / 1e6:.2f} MB; target < 6")
    print(f"start to /readyz 200       {spread(took, 'ms')}; target <= 8")
    print(f"boto3 register_usage alone {spread(boto3, 'ms')}")
    print(f"boto3 / tollgate           {statistics.median(boto3) / statistics.median(took):.1f}")
    print(f"memory when ready (RSS)    {spread([mib for _, mib in ready], 'MiB')}; target <= 8")


if __name__ == "__main__":
    main()
