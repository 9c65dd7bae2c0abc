//! A disk that fails or stops at a chosen operation, and then shows what a machine would find after it lost power.

#![allow(dead_code, reason = "each test binary breaks it in its own way")]

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use tollgate::ledger::disk::{Disk, DiskFile};

const SECTOR: usize = 512;

/// What happens at the chosen operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Break {
    /// It and everything after it does not happen: the machine is off.
    Stop,
    /// It fails, and what was written before and not yet synced may never reach the disk.
    Fail,
}

/// What of the writes that were not synced is found after a crash.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {
    All,
    Nothing,
    /// Each sector, and each change of a name after a random one, by a seed.
    Random(u64),
}

#[derive(Debug, Default)]
pub(crate) struct SimDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    renames: Vec<NameChange>,
    files: Vec<Content>,
    operations: u64,
    broken: Option<(u64, Break)>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Set(String, usize),
    Remove(String),
    Rename(String, String),
}

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

#[derive(Debug)]
struct SimFile {
    inner: Arc<Mutex<Inner>>,
    index: usize,
}

impl SimDisk {
    /// A disk that breaks at the `at`th operation that changes something, counted from 1.
    pub(crate) fn breaking(self, at: u64, how: Break) -> Self {
        {
            let mut inner = self.lock();
            inner.operations = 0;
            inner.broken = Some((at, how));
        }
        self
    }

    /// Another way to the same disk.
    pub(crate) fn handle(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }

    /// The same disk for a process started anew: what is written is there, synced or not.
    pub(crate) fn restarted(&self) -> Self {
        let inner = self.lock();
        let names = inner.names.clone();
        let (durable_names, renames) = (inner.durable_names.clone(), inner.renames.clone());
        let files = inner.files.clone();
        Self::of(Inner {
            names,
            durable_names,
            renames,
            files,
            operations: 0,
            broken: None,
        })
    }

    /// What is found once the machine has power again.
    pub(crate) fn crashed(&self, loss: Loss) -> Self {
        let inner = self.lock();
        let mut random = fastrand::Rng::with_seed(if let Loss::Random(seed) = loss {
            seed
        } else {
            0
        });
        let kept = match loss {
            Loss::All => 0,
            Loss::Nothing => inner.renames.len(),
            Loss::Random(_) => random.usize(0..=inner.renames.len()),
        };
        let mut names = inner.durable_names.clone();
        for change in &inner.renames[..kept] {
            change.apply(&mut names);
        }
        let files = inner
            .files
            .iter()
            .map(|file| file.crashed(loss, &mut random))
            .collect();
        Self::of(Inner {
            durable_names: names.clone(),
            names,
            files,
            ..Inner::default()
        })
    }

    pub(crate) fn operations(&self) -> u64 {
        self.lock().operations
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().names.keys().cloned().collect()
    }

    /// Changes a file's bytes behind the ledger's back.
    pub(crate) fn alter(&self, name: &str, alter: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.lock();
        let index = inner.names[name];
        alter(&mut inner.files[index].now);
        let file = &mut inner.files[index];
        file.durable.clone_from(&file.now);
    }

    /// Removes a file behind the ledger's back.
    pub(crate) fn forget(&self, name: &str) {
        let mut inner = self.lock();
        inner.names.remove(name);
        inner.durable_names.remove(name);
    }

    pub(crate) fn len(&self, name: &str) -> usize {
        let inner = self.lock();
        inner.files[inner.names[name]].now.len()
    }

    fn of(inner: Inner) -> Self {
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}

impl Inner {
    /// Counts an operation. `Err` where it must not happen.
    fn step(&mut self) -> io::Result<()> {
        self.operations += 1;
        match self.broken {
            Some((at, Break::Stop)) if self.operations >= at => {
                Err(io::Error::other("the machine is off"))
            }
            Some((at, Break::Fail)) if self.operations == at => {
                Err(io::Error::other("input/output error"))
            }
            _ => Ok(()),
        }
    }

    fn is_at_break(&self) -> bool {
        self.broken.is_some_and(|(at, _)| at == self.operations)
    }

    fn name(&mut self, change: NameChange) -> io::Result<()> {
        self.step()?;
        change.apply(&mut self.names);
        self.renames.push(change);
        Ok(())
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Set(name, index) => {
                names.insert(name.clone(), *index);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Rename(from, to) => {
                if let Some(index) = names.remove(from) {
                    names.insert(to.clone(), index);
                }
            }
        }
    }
}

impl Content {
    fn crashed(&self, loss: Loss, random: &mut fastrand::Rng) -> Self {
        let mut bytes = self.durable.clone();
        for change in &self.unsynced {
            match (change, loss) {
                (_, Loss::All) => {}
                (Change::Len(len), Loss::Nothing) => bytes.resize(*len, 0),
                (Change::Len(len), Loss::Random(_)) => {
                    if random.bool() {
                        bytes.resize(*len, 0);
                    }
                }
                (Change::Write(offset, data), _) => {
                    let mut at = *offset;
                    while at < offset + data.len() {
                        let end = ((at / SECTOR + 1) * SECTOR).min(offset + data.len());
                        if matches!(loss, Loss::Nothing) || random.bool() {
                            put(&mut bytes, at, &data[at - offset..end - offset]);
                        }
                        at = end;
                    }
                }
            }
        }
        Self {
            now: bytes.clone(),
            durable: bytes,
            unsynced: Vec::new(),
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if bytes.len() < offset + data.len() {
        bytes.resize(offset + data.len(), 0);
    }
    bytes[offset..offset + data.len()].copy_from_slice(data);
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let inner = self.lock();
        let top = inner
            .names
            .keys()
            .map(|name| name.split('/').next().unwrap().to_owned());
        let mut names: Vec<_> = top.collect();
        names.dedup();
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.lock();
        let known = inner.names.get(name).copied();
        let index = if let Some(index) = known {
            index
        } else {
            let index = inner.files.len();
            inner.name(NameChange::Set(name.to_owned(), index))?;
            inner.files.push(Content::default());
            index
        };
        Ok(Arc::new(SimFile {
            inner: self.inner.clone(),
            index,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.lock()
            .name(NameChange::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.lock().name(NameChange::Remove(name.to_owned()))
    }

    fn make_dir(&self, _: &str) -> io::Result<()> {
        self.lock().step()
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.step()?;
        inner.durable_names = inner.names.clone();
        inner.renames.clear();
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        let inner = self.inner.lock().unwrap();
        Ok(inner.files[self.index].now.len() as u64)
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let inner = self.inner.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        let found = inner.files[self.index].now.get(offset..offset + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        let outcome = inner.step();
        // The write that the machine stops at may have reached the disk in part; later ones were never begun.
        if outcome.is_ok() || inner.is_at_break() {
            let file = &mut inner.files[self.index];
            file.unsynced.push(Change::Write(offset, data.to_vec()));
            if outcome.is_ok() {
                put(&mut file.now, offset, data);
            }
        }
        outcome
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap();
        inner.step()?;
        let len = usize::try_from(len).unwrap();
        let file = &mut inner.files[self.index];
        file.now.resize(len, 0);
        file.unsynced.push(Change::Len(len));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap();
        let outcome = inner.step();
        let fails = matches!(inner.broken, Some((_, Break::Fail)));
        let file = &mut inner.files[self.index];
        match outcome {
            Ok(()) => {
                for change in std::mem::take(&mut file.unsynced) {
                    match change {
                        Change::Write(offset, data) => put(&mut file.durable, offset, &data),
                        Change::Len(len) => file.durable.resize(len, 0),
                    }
                }
                Ok(())
            }
            Err(error) => {
                if fails {
                    // The kernel takes the pages for clean: they are read back, and never written again.
                    file.unsynced.clear();
                }
                Err(error)
            }
        }
    }
}
