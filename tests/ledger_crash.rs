//! The ledger broken at every operation that changes its disk, journal and database alike: each write, each sync, each
//! change of a name. A run is counted, then repeated with the machine stopping, or the operation failing, at each one.
//!
//! Whatever happens, a ledger opened again is sound, holds everything that was acknowledged, and after the app has repeated
//! what was not, AWS bills every report once.

#![allow(clippy::unwrap_used, reason = "a test stops where its set-up fails")]

#[path = "ledger/scenario.rs"]
mod scenario;
#[path = "ledger/sim_disk.rs"]
mod sim_disk;

use scenario::World;
use sim_disk::{Break, Loss, SimDisk};

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Lives until the disk breaks, and leaves the disk as it was then.
fn live_until_broken(at: u64, how: Break) -> (World, SimDisk) {
    let mut world = World::new();
    let disk = SimDisk::default().breaking(at, how);
    let handle = disk.handle();
    if let Ok(mut process) = world.start(disk) {
        let _ = run(world.live(&mut process));
    }
    (world, handle)
}

fn operations() -> u64 {
    let (world, disk) = live_until_broken(u64::MAX, Break::Stop);
    assert!(world.acknowledged.iter().all(|known| *known));
    disk.operations()
}

fn recovers(mut world: World, disk: SimDisk, case: &str) {
    run(async {
        let mut process = world
            .start(disk)
            .unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(process.opened.damaged, None, "{case}");
        world.check_nothing_is_lost(&process).await;
        world.finish(&mut process).await;
    });
}

#[test]
fn a_machine_that_stops_at_any_operation_loses_nothing_and_bills_nothing_twice() {
    let operations = operations();
    assert!(operations > 100, "{operations}");
    for at in 1..=operations {
        for (number, loss) in [
            Loss::All,
            Loss::Nothing,
            Loss::Random(at),
            Loss::Random(at << 32),
        ]
        .into_iter()
        .enumerate()
        {
            let (world, disk) = live_until_broken(at, Break::Stop);
            recovers(
                world,
                disk.crashed(loss),
                &format!("stopped at operation {at}, loss {number} {loss:?}"),
            );
        }
    }
}

#[test]
fn an_operation_that_fails_latches_and_a_restart_goes_on() {
    for at in 1..=operations() {
        let (world, disk) = live_until_broken(at, Break::Fail);
        recovers(
            world,
            disk.restarted(),
            &format!("operation {at} failed, process restarted"),
        );
        let (world, disk) = live_until_broken(at, Break::Fail);
        recovers(
            world,
            disk.crashed(Loss::All),
            &format!("operation {at} failed, machine restarted"),
        );
    }
}

#[test]
fn a_restart_after_a_failed_sync_relies_on_nothing_that_only_the_page_cache_has() {
    for at in 1..=operations() {
        // Enough to write, to begin new segments, to do next to nothing.
        for reports in [scenario::REPORTS, 1] {
            let (mut world, disk) = live_until_broken(at, Break::Fail);
            let restarted = disk.restarted();
            let handle = restarted.handle();
            let process = world.start(restarted).unwrap();
            let crashed = run(async {
                world.check_nothing_is_lost(&process).await;
                world.report(&process, 0..reports).await;
                handle.crashed(Loss::All)
            });
            drop(process);
            let case = format!("operation {at} failed, process restarted, machine lost power");
            recovers(world, crashed, &case);
        }
    }
}

#[test]
fn a_machine_that_stops_again_while_it_recovers_loses_nothing_either() {
    for at in (1..=operations()).step_by(5) {
        for again in 1.. {
            let (world, disk) = live_until_broken(at, Break::Stop);
            let second = disk.crashed(Loss::Random(at)).breaking(again, Break::Stop);
            let handle = second.handle();
            let started = world.start(second);
            let whole = started.is_ok() && handle.operations() < again;
            drop(started);
            let case = format!("stopped at operation {at}, again at {again}");
            recovers(world, handle.crashed(Loss::Random(again)), &case);
            if whole {
                break;
            }
        }
    }
}
