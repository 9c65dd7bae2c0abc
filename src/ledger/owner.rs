//! The one thread that owns the ledger: it decides, makes durable, and only then answers and sends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::block::Draft;
use super::journal::Journal;
use super::keys::{CallKey, KeyEntry, Keys, Seen};
use super::queue::Queue;
use super::record::{Filter, Record, Summary};
use super::recovery::Recovered;
use super::store::{Meta, Store};
use super::{Clock, LedgerError, Receipt, ReportError, ResolutionError, frame, notice};
use crate::meter::{
    Call, Core, Decision, Report, ResolveError, SeriesKey, Status, Submission, Taken,
};
use crate::usage::{BucketId, Customer, Identity, Moment, RecordId};

/// What callers ask of the owner.
pub(super) enum Command {
    Report {
        report: Report,
        key: Option<CallKey>,
        reply: oneshot::Sender<Reported>,
    },
    /// Reports of customers: all of them or none.
    ReportAll {
        reports: Vec<Report>,
        key: Option<CallKey>,
        reply: oneshot::Sender<ReportedAll>,
    },
    /// Runs on the owner, and is answered when what it decided is durable.
    Call(Box<dyn FnOnce(&mut Owner) -> Reply + Send>),
}

/// Answers a call once it is durable, or with the reason why it never will be.
pub(super) type Reply = Box<dyn FnOnce(Result<(), &Arc<str>>) + Send>;

/// What a report came to.
type Reported = Result<Receipt, ReportError>;

/// What a call with several reports came to: their ids, none for a customer that is not subscribed.
pub(super) type ReportedAll = Result<Vec<Option<RecordId>>, ReportError>;

pub(super) struct Owner {
    core: Core,
    journal: Journal,
    store: Store,
    keys: Keys,
    meta: Meta,
    clock: Clock,
    queue: Arc<Queue<Command>>,
    calls: mpsc::UnboundedSender<Call>,
    failed: watch::Sender<Option<Arc<str>>>,
    draft: Draft,
    /// What the batch owes its callers and AWS.
    reports: Vec<(oneshot::Sender<Reported>, Reported)>,
    replies: Vec<Reply>,
    submit: Vec<Call>,
    /// The last id made: ids only go up.
    last_id: (Moment, u16),
    /// Journal bytes that the checkpoint does not have.
    journaled: usize,
    changed_at: Moment,
}

impl Owner {
    pub(super) fn new(
        recovered: Recovered,
        clock: Clock,
        queue: Arc<Queue<Command>>,
        calls: mpsc::UnboundedSender<Call>,
        failed: watch::Sender<Option<Arc<str>>>,
    ) -> Self {
        let Recovered {
            store,
            journal,
            keys,
            meta,
            core,
            opened,
        } = recovered;
        let changed_at = clock();
        Self {
            core,
            journal,
            store,
            keys,
            meta,
            clock,
            queue,
            calls,
            failed,
            draft: Draft::new(),
            reports: Vec::new(),
            replies: Vec::new(),
            submit: Vec::new(),
            last_id: (Moment::from_millis(0), 0),
            journaled: usize::from(opened.replayed > 0),
            changed_at,
        }
    }

    /// The process has started: what is decided of that is durable before anything else.
    pub(super) fn begin(&mut self, identity: &Identity) -> Result<(), LedgerError> {
        self.decide(|core, now| core.open(now, identity));
        self.commit()
    }

    /// Runs until the queue is closed, or until something can't be made durable: from then on every call is refused.
    pub(super) fn run(mut self) {
        let mut batch = VecDeque::new();
        let reason: Arc<str> = match self.serve(&mut batch) {
            Ok(()) => return,
            Err(error) => describe(&error).into(),
        };
        tracing::error!(%reason, "the ledger can't be written; nothing is acknowledged from now on");
        self.failed.send_replace(Some(reason.clone()));
        for (reply, _) in self.reports.drain(..) {
            let _ = reply.send(Err(ReportError::Failed(reason.clone())));
        }
        for reply in std::mem::take(&mut self.replies) {
            reply(Err(&reason));
        }
        self.refuse(&mut batch, &reason);
    }

    fn serve(&mut self, batch: &mut VecDeque<Command>) -> Result<(), LedgerError> {
        loop {
            let nap = self.nap();
            let open = self.queue.take(batch, nap);
            self.tick();
            while let Some(command) = batch.pop_front() {
                self.handle(command)?;
                if self.draft.len() > BATCH_BYTES_MAX {
                    self.commit()?;
                }
            }
            self.commit()?;
            let idle = self.now().ms_since(self.changed_at) >= IDLE_MS;
            let many = self.core.state().finished().len() >= FINISHED_MAX;
            if self.journaled >= CHECKPOINT_BYTES || many || (idle || !open) && self.journaled > 0 {
                self.checkpoint()?;
            }
            if !open {
                return Ok(());
            }
        }
    }

    /// Decides something and writes its facts into the batch.
    pub(super) fn decide<T>(&mut self, decide: impl FnOnce(&mut Core, Moment) -> Decision<T>) -> T {
        let now = self.now();
        let decision = decide(&mut self.core, now);
        self.take(decision, None)
    }

    pub(super) fn take<T>(&mut self, decision: Decision<T>, key: Option<&KeyEntry>) -> T {
        let Decision {
            facts,
            reply,
            submit,
        } = decision;
        if !facts.is_empty() || key.is_some() {
            frame::write(self.draft.payload(), key, &facts);
            facts.iter().for_each(notice::of);
        }
        self.submit.extend(submit);
        reply
    }

    pub(super) fn core(&mut self) -> &mut Core {
        &mut self.core
    }

    pub(super) fn now(&self) -> Moment {
        (self.clock)()
    }

    /// The record that an app's id leads to.
    pub(super) fn look_up(&self, id: RecordId) -> Result<Option<Record>, LedgerError> {
        id.bucket(self.meta.secret)
            .map_or(Ok(None), |bucket| self.record(bucket))
    }

    pub(super) fn record(&self, id: BucketId) -> Result<Option<Record>, LedgerError> {
        let state = self.core.state();
        if let Some(bucket) = state.open().get(&id) {
            let customer = self.customer(bucket.key());
            return Ok(Some(Record::of_bucket(id, bucket, customer)));
        }
        if let Some(submission) = state
            .unsettled()
            .get(&id)
            .or_else(|| state.finished().get(&id))
        {
            return Ok(Some(self.record_of(submission)));
        }
        let finished = self.store.finished(id)?;
        Ok(finished.map(|submission| self.record_of(&submission)))
    }

    fn record_of(&self, submission: &Submission) -> Record {
        Record::of_submission(submission, self.customer(&submission.request.key))
    }

    fn customer(&self, key: &SeriesKey) -> Option<Customer> {
        let row = self.core.state().customer(key.customer?)?;
        Some(row.customer().clone())
    }

    /// The latest records that the filter takes, oldest first.
    pub(super) fn records(&self, filter: &Filter) -> Result<Vec<Record>, LedgerError> {
        let state = self.core.state();
        let open = state
            .open()
            .iter()
            .map(|(id, bucket)| Record::of_bucket(*id, bucket, self.customer(bucket.key())));
        let known = state
            .unsettled()
            .values()
            .chain(state.finished().values())
            .map(|submission| self.record_of(submission));
        let mut records: Vec<_> = open
            .chain(known)
            .filter(|record| filter.takes(record))
            .collect();
        let mut room = filter.limit;
        let every = BucketId(u32::MAX);
        self.store.history(every, |submission| {
            let record = self.record_of(&submission);
            if filter.takes(&record) {
                records.push(record);
                room = room.saturating_sub(1);
            }
            room > 0
        })?;
        records.sort_by_key(|record| record.bucket);
        records.drain(..records.len().saturating_sub(filter.limit));
        Ok(records)
    }

    pub(super) fn summary(&self) -> Summary {
        let state = self.core.state();
        let in_doubt = state
            .unsettled()
            .values()
            .filter(|s| matches!(s.status, Status::InDoubt { .. }))
            .count() as u64;
        let on_their_way = state
            .unsettled()
            .values()
            .filter(|s| !matches!(s.status, Status::InDoubt { .. }));
        let root = state.root();
        Summary {
            open: state.open().len() as u64,
            sealed: state.unsettled().len() as u64 - in_doubt,
            settled: root.settled(),
            rolled_forward: root.rolled_forward(),
            in_doubt,
            rejected: root.rejected(),
            oldest_unsettled_at: on_their_way.map(|s| s.request.timestamp).min(),
            last_settled_at: root.last_settled_at(),
            keys_dropped: self.keys.dropped(),
            customers: state.customer_count() as u64,
            customers_not_subscribed: state
                .customers()
                .filter(|(_, row)| row.unsubscribed_at().is_some())
                .count() as u64,
        }
    }

    /// Makes the checkpoint due as soon as the batch is durable.
    pub(super) fn checkpoint_next(&mut self) {
        self.journaled = CHECKPOINT_BYTES;
    }

    /// Why a record that the core does not hold can't be resolved: it is history, or unknown.
    pub(super) fn refuse_resolution(&self, bucket: BucketId) -> Result<(), ResolutionError> {
        let record = self.record(bucket)?;
        Err(record.map_or(ResolveError::Unknown(bucket), |record| {
            ResolveError::NotInDoubt {
                bucket,
                status: record.state.name(),
            }
        }))?
    }

    /// Writes the state of record, and lets go of the journal that it has in it.
    fn checkpoint(&mut self) -> Result<(), LedgerError> {
        let keys = self.keys.needed_from(self.now());
        let active = self.journal.active();
        self.meta.applied_through = self.journal.last_sequence();
        self.meta.segments = (keys.map_or(active, |place| place.segment), active);
        self.meta.root = self.core.state().root().clone();
        self.store.checkpoint(&self.meta, self.core.state())?;
        self.core.state_mut().checkpointed();
        self.journaled = 0;
        self.journal
            .trim(self.meta.segments.0)
            .map_err(LedgerError::Io)
    }

    /// How long nothing will have to be done, if nobody asks.
    fn nap(&mut self) -> Duration {
        let now = self.now();
        let wake = self
            .core
            .next_wake(now)
            .map_or(NAP_MS_MAX, |wake| wake.ms_since(now));
        Duration::from_millis(wake.clamp(0, NAP_MS_MAX).unsigned_abs())
    }

    fn tick(&mut self) {
        let now = self.now();
        if self.core.next_wake(now).is_some_and(|wake| wake <= now) {
            self.decide(Core::tick);
        }
    }

    fn handle(&mut self, command: Command) -> Result<(), LedgerError> {
        match command {
            Command::Report { report, key, reply } => {
                let outcome = self.report(&report, key)?;
                self.reports.push((reply, outcome));
            }
            Command::ReportAll {
                reports,
                key,
                reply,
            } => {
                let outcome = self.report_all(&reports, key)?;
                self.replies.push(Box::new(move |durable| {
                    let outcome = match durable {
                        Ok(()) => outcome,
                        Err(reason) => Err(ReportError::Failed(reason.clone())),
                    };
                    let _ = reply.send(outcome);
                }));
            }
            Command::Call(call) => {
                let reply = call(self);
                self.replies.push(reply);
            }
        }
        Ok(())
    }

    fn report(&mut self, report: &Report, key: Option<CallKey>) -> Result<Reported, LedgerError> {
        let now = self.now();
        match self.look_up_key(key.as_ref(), now)? {
            Seen::New => {}
            Seen::Same(entry) => {
                let id = entry.id();
                return Ok(Ok(Receipt { id, repeated: true }));
            }
            Seen::Conflict => return Ok(Err(ReportError::Conflict)),
        }
        let decision = match self.core.report(now, report) {
            Ok(decision) => decision,
            Err(refusal) => return Ok(Err(ReportError::Refused(refusal))),
        };
        let id = self.next_id(now, decision.reply);
        let entry = key.map(|key| KeyEntry {
            key,
            id: id.to_bytes(),
            records: Vec::new(),
        });
        self.take(decision, entry.as_ref());
        if let Some(entry) = entry {
            self.keys.note(entry);
        }
        Ok(Ok(Receipt {
            id,
            repeated: false,
        }))
    }

    fn report_all(
        &mut self,
        reports: &[Report],
        key: Option<CallKey>,
    ) -> Result<ReportedAll, LedgerError> {
        let now = self.now();
        match self.look_up_key(key.as_ref(), now)? {
            Seen::New => {}
            Seen::Same(entry) => return Ok(Ok(entry.records.iter().map(id_or_none).collect())),
            Seen::Conflict => return Ok(Err(ReportError::Conflict)),
        }
        let decision = match self.core.report_all(now, reports) {
            Ok(decision) => decision,
            Err(refusal) => return Ok(Err(ReportError::Refused(refusal))),
        };
        let ids: Vec<Option<RecordId>> = decision
            .reply
            .iter()
            .map(|taken| match taken {
                Taken::In(bucket) => Some(self.next_id(now, *bucket)),
                Taken::NotSubscribed => None,
            })
            .collect();
        let entry = key.filter(|_| !ids.is_empty()).map(|key| KeyEntry {
            key,
            id: self.next_id(now, NO_BUCKET).to_bytes(),
            records: ids
                .iter()
                .map(|id| id.map_or(NOT_TAKEN, RecordId::to_bytes))
                .collect(),
        });
        self.take(decision, entry.as_ref());
        if let Some(entry) = entry {
            self.keys.note(entry);
        }
        Ok(Ok(ids))
    }

    fn look_up_key(&mut self, key: Option<&CallKey>, now: Moment) -> Result<Seen, LedgerError> {
        let Some(key) = key else {
            return Ok(Seen::New);
        };
        self.keys
            .look_up(&self.journal, key, now)
            .map_err(LedgerError::Io)
    }

    /// Makes the batch durable, then answers it and sends what is to be sent.
    fn commit(&mut self) -> Result<(), LedgerError> {
        if !self.draft.is_empty() {
            let place = self
                .journal
                .append(&mut self.draft)
                .map_err(LedgerError::Io)?;
            self.journaled += self.draft.len();
            self.draft.clear();
            let now = self.now();
            self.keys.commit(place, now);
            self.changed_at = now;
        }
        for (reply, outcome) in self.reports.drain(..) {
            let _ = reply.send(outcome);
        }
        for reply in std::mem::take(&mut self.replies) {
            reply(Ok(()));
        }
        for call in self.submit.drain(..) {
            // Without a receiver nothing is sent, and the attempts are given up as doubtful in their time.
            let _ = self.calls.send(call);
        }
        Ok(())
    }

    fn next_id(&mut self, now: Moment, bucket: BucketId) -> RecordId {
        let (last, counter) = self.last_id;
        self.last_id = match counter {
            _ if now > last => (now, 0),
            ID_COUNTER_MAX => (last.plus_ms(1), 0),
            _ => (last, counter + 1),
        };
        RecordId::new(self.meta.secret, self.last_id.0, self.last_id.1, bucket)
    }

    /// Refuses what waits and what comes, until nobody holds the ledger any more.
    fn refuse(&mut self, batch: &mut VecDeque<Command>, reason: &Arc<str>) {
        loop {
            for command in batch.drain(..) {
                match command {
                    Command::Report { reply, .. } => {
                        let _ = reply.send(Err(ReportError::Failed(reason.clone())));
                    }
                    Command::ReportAll { reply, .. } => {
                        let _ = reply.send(Err(ReportError::Failed(reason.clone())));
                    }
                    // Dropping the call drops its reply, and the caller finds the reason in the watch.
                    Command::Call(_) => {}
                }
            }
            if !self
                .queue
                .take(batch, Duration::from_millis(NAP_MS_MAX.unsigned_abs()))
                && batch.is_empty()
            {
                return;
            }
        }
    }
}

fn id_or_none(bytes: &[u8; 16]) -> Option<RecordId> {
    (*bytes != NOT_TAKEN).then(|| RecordId::from_bytes(*bytes))
}

fn describe(error: &LedgerError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// A batch is written when it has grown to so much, whoever else waits.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// So much journal is replayed at most after a crash: a fraction of a second.
const CHECKPOINT_BYTES: usize = 32 * 1024 * 1024;
/// Finished submissions that wait for the checkpoint in memory.
const FINISHED_MAX: usize = 1024;
/// After so long without a change, a checkpoint disturbs nobody.
const IDLE_MS: i64 = 10_000;
/// A wall clock that was set is noticed within so long.
const NAP_MS_MAX: i64 = 1000;
const ID_COUNTER_MAX: u16 = 0xfff;
/// The bucket of an id that leads nowhere: a call's own.
const NO_BUCKET: BucketId = BucketId(u32::MAX);
/// In the place of an id.
const NOT_TAKEN: [u8; 16] = [0; 16];
