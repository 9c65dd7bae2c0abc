//! A ledger whose files were changed behind its back: single bits flipped, files cut short or missing.
//!
//! Opening it never panics and never loses silently: either everything acknowledged is there, or the ledger is moved aside,
//! whole, the caller is told, and a new one works.

#![allow(clippy::unwrap_used, reason = "a test stops where its set-up fails")]

#[path = "ledger/scenario.rs"]
mod scenario;
#[path = "ledger/sim_disk.rs"]
mod sim_disk;

use scenario::World;
use sim_disk::{Loss, SimDisk};

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// A ledger as a crash leaves it: a checkpoint, and a journal beyond it.
fn ledger_after_a_crash() -> (World, SimDisk) {
    let mut world = World::new();
    let disk = SimDisk::default();
    let handle = disk.handle();
    let mut process = world.start(disk).unwrap();
    let crashed = run(async {
        world.live(&mut process).await.unwrap();
        handle.crashed(Loss::All)
    });
    (world, crashed)
}

/// True where the damage was found.
fn survives(world: &World, disk: SimDisk, case: &str) -> bool {
    let handle = disk.handle();
    let process = world
        .start(disk)
        .unwrap_or_else(|error| panic!("{case}: {error}"));
    let Some(damage) = &process.opened.damaged else {
        run(world.check_nothing_is_lost(&process));
        return false;
    };
    let aside = format!("{}/", damage.moved_to);
    assert!(
        handle.names().iter().any(|name| name.starts_with(&aside)),
        "{case}: kept aside"
    );
    let mut next = World::new();
    run(next.report(&process, 0..3));
    assert!(
        next.acknowledged[..3].iter().all(|known| *known),
        "{case}: the new one works"
    );
    true
}

#[test]
fn a_flipped_bit_anywhere_is_harmless_or_found() {
    let (world, disk) = ledger_after_a_crash();
    let files: Vec<_> = disk.names();
    let mut found = 0;
    for name in &files {
        let bits = disk.len(name) * 8;
        let journal = name.starts_with("journal");
        // Every byte of what the journal uses would take minutes; a stride that hits every field's place does not.
        let (end, stride) = if journal {
            (bits.min(16_000 * 8), 197)
        } else {
            (bits, bits / 700)
        };
        for bit in (0..end).step_by(stride) {
            let altered = disk.restarted();
            altered.alter(name, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            found += u32::from(survives(&world, altered, &format!("{name}, bit {bit}")));
        }
    }
    assert!(found > 100, "the bits that matter are found: {found}");
}

#[test]
fn a_file_cut_short_is_found() {
    let (world, disk) = ledger_after_a_crash();
    for name in disk.names() {
        let len = disk.len(&name);
        let mut found = 0;
        for step in 0..100 {
            let cut = if name.starts_with("journal") {
                step * 163
            } else {
                len / 100 * step
            };
            let altered = disk.restarted();
            altered.alter(&name, |bytes| bytes.truncate(cut));
            found += u32::from(survives(&world, altered, &format!("{name} cut at {cut}")));
        }
        assert!(found > 30, "{name}: {found}");
    }
}

#[test]
fn a_missing_file_is_found() {
    let (world, disk) = ledger_after_a_crash();
    for name in disk.names() {
        let altered = disk.restarted();
        altered.forget(&name);
        assert!(
            survives(&world, altered, &format!("{name} missing")),
            "{name}"
        );
    }
}

#[test]
fn a_ledger_moved_aside_is_found_again_by_nobody() {
    let (world, disk) = ledger_after_a_crash();
    disk.alter("ledger.redb", |bytes| bytes.truncate(100));
    let handle = disk.handle();
    let process = world.start(disk).unwrap();
    assert!(process.opened.damaged.is_some());
    drop(process);
    let process = world.start(handle.restarted()).unwrap();
    assert_eq!(
        (process.opened.new, &process.opened.damaged),
        (false, &None)
    );
}
