//! One state of the world, and the states that one step leads to.

/// Records of the source.
pub(crate) const RECORDS: u8 = 3;
const GENERATIONS: u8 = 4;
const CRASHES: u8 = 2;

/// What the sink is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum SinkKind {
    /// Messages one by one, each naming the one before it (VX-845).
    Stream,
    /// A file for each epoch, renamed out of the session's directory (VX-853).
    Files,
}

/// A rule that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Mutant {
    /// Epochs are compared by number, and work goes on from the local record.
    EpochWithoutDigest,
    /// The sink takes every message.
    NoChain,
    /// What was found at the start is forgotten after one epoch.
    ReadBackForOneEpoch,
    /// Nobody says what it is about to make visible.
    NoIntents,
    /// The next intent is written before the commit.
    SecondIntent,
    /// An epoch that is redone gets its new generation in the store first.
    IntentBeforeRestamp,
}

/// An epoch as it was decided: with this generation, of these records. That is its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Epoch {
    generation: u8,
    number: u8,
    first: u8,
    /// Position behind the last record.
    end: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Document {
    generation: u8,
    commit: Option<Epoch>,
    intent: Option<Epoch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Message {
    Barrier(u8),
    Output(u8),
    File(Epoch),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Ledger {
    committed: Option<Epoch>,
    prepared: Option<Prepared>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Prepared {
    epoch: Epoch,
    /// Somebody else has claimed since it was decided.
    seen_by_others: bool,
}

/// A session that runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Session {
    generation: u8,
    /// Nobody else has changed the document since its own last change.
    is_current: bool,
    /// The document that its claim wrote, until it has decided.
    view: Option<Document>,
    step: Step,
    /// Length of the stream behind its last message.
    tail: u8,
    /// Outputs or epochs that were visible when it began, by bits of the records.
    found: u8,
    found_files: Vec<Epoch>,
    /// Where the next epoch begins, and its number.
    resume: u8,
    number: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Step {
    Barrier,
    ReadBack,
    Decide,
    /// The outbox is stamped; the store is not.
    StampIntent(Epoch),
    /// With a mutant: the store is stamped; the outbox is not.
    StampOutbox(Epoch),
    Cut,
    Intent(Epoch),
    Persist(Epoch),
    /// With a mutant.
    NextIntent(Epoch),
    Publish(Epoch, u8),
    Commit(Epoch),
    Finish(Epoch),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Owner {
    ledger: Ledger,
    session: Option<Session>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    kind: SinkKind,
    left_out: &'static [Mutant],
    store: Document,
    /// What the store has committed, by epoch.
    history: Vec<Epoch>,
    sink: Vec<Message>,
    owners: [Owner; 2],
    crashes: u8,
    /// Somebody found what its pipeline would not have written, or threw away what it alone had decided.
    broken: Option<&'static str>,
}

impl World {
    pub(crate) fn new(kind: SinkKind, left_out: &'static [Mutant]) -> Self {
        Self {
            kind,
            left_out,
            store: Document { generation: 0, commit: None, intent: None },
            history: Vec::new(),
            sink: Vec::new(),
            owners: Default::default(),
            crashes: 0,
            broken: None,
        }
    }

    /// The owners are alike, so it does not matter which is which.
    pub(crate) fn sorted(mut self) -> Self {
        self.owners.sort();
        self
    }

    /// The committed resume position.
    pub(crate) fn resume(&self) -> u8 {
        self.store.commit.map_or(0, |epoch| epoch.end)
    }

    /// What has to hold in every state.
    pub(crate) fn check(&self) -> Result<(), String> {
        let broken = |what: &str| Err(format!("{what}: {self:#?}"));
        if let Some(what) = self.broken {
            return broken(what);
        }
        let mut visible = [0; RECORDS as usize];
        for message in &self.sink {
            let range = match message {
                Message::Barrier(_) => 0..0,
                Message::Output(record) => *record..record + 1,
                Message::File(epoch) => epoch.first..epoch.end,
            };
            range.for_each(|record| visible[usize::from(record)] += 1);
        }
        if visible.iter().any(|count| *count > 1) {
            return broken("an output is there twice");
        }
        if visible[..usize::from(self.resume())].contains(&0) {
            return broken("an output below the committed position is missing");
        }
        let known = |epoch: &Epoch| self.history.get(usize::from(epoch.number) - 1) == Some(epoch);
        if self.owners.iter().filter_map(|owner| owner.ledger.committed).any(|epoch| !known(&epoch)) {
            return broken("a ledger calls something COMMITTED that is not");
        }
        Ok(())
    }

    /// All states that one step leads to.
    pub(crate) fn steps(&self) -> Vec<World> {
        let mut next = Vec::new();
        for index in 0..self.owners.len() {
            match &self.owners[index].session {
                None if self.store.generation < GENERATIONS => next.push(self.claimed(index)),
                None => {}
                Some(session) => {
                    if self.crashes < CRASHES {
                        let mut world = self.clone();
                        world.crashes += 1;
                        world.owners[index].session = None;
                        next.push(world);
                    }
                    self.stepped(index, session, &mut next);
                }
            }
        }
        next
    }

    fn claimed(&self, index: usize) -> World {
        let mut world = self.clone();
        world.store.generation += 1;
        world.owners[index].session = Some(Session {
            generation: world.store.generation,
            is_current: true,
            view: Some(world.store),
            step: Step::Barrier,
            tail: 0,
            found: 0,
            found_files: Vec::new(),
            resume: 0,
            number: 0,
        });
        world.changed(index);
        if let Some(prepared) = &mut world.owners[1 - index].ledger.prepared {
            prepared.seen_by_others = true;
        }
        world
    }

    fn stepped(&self, index: usize, session: &Session, next: &mut Vec<World>) {
        let mut world = self.clone();
        let goes_on = match session.step {
            Step::Cut => {
                for end in session.resume + 1..=RECORDS {
                    let epoch = Epoch {
                        generation: session.generation,
                        number: session.number,
                        first: session.resume,
                        end,
                    };
                    let mut world = self.clone();
                    let step = if self.has_intents() { Step::Intent(epoch) } else { Step::Persist(epoch) };
                    world.session(index).step = step;
                    next.push(world);
                }
                return;
            }
            Step::Barrier => world.barrier(index),
            Step::ReadBack => world.read_back(index),
            Step::Decide => world.decide(index),
            Step::StampIntent(epoch) => {
                world.put_intent(index, epoch) && world.go(index, Step::Publish(epoch, epoch.first))
            }
            Step::StampOutbox(epoch) => {
                world.prepare(index, epoch);
                world.go(index, Step::Publish(epoch, epoch.first))
            }
            Step::Intent(epoch) => world.put_intent(index, epoch) && world.go(index, Step::Persist(epoch)),
            Step::Persist(epoch) => {
                world.prepare(index, epoch);
                let second = self.lacks(Mutant::SecondIntent) && epoch.end < RECORDS;
                let publish = Step::Publish(epoch, epoch.first);
                world.go(index, if second { Step::NextIntent(epoch) } else { publish })
            }
            Step::NextIntent(epoch) => {
                let following = Epoch { number: epoch.number + 1, first: epoch.end, end: RECORDS, ..epoch };
                world.put_intent(index, following) && world.go(index, Step::Publish(epoch, epoch.first))
            }
            Step::Publish(epoch, record) => world.publish(index, epoch, record),
            Step::Commit(epoch) => world.commit(index, epoch),
            Step::Finish(epoch) => world.finish(index, epoch),
        };
        if !goes_on {
            // Refused: the session is over. What it has in its ledger stays.
            world.owners[index].session = None;
        }
        next.push(world);
    }

    fn barrier(&mut self, index: usize) -> bool {
        let generation = self.session(index).generation;
        let newer = |message: &Message| matches!(message, Message::Barrier(other) if *other > generation);
        if self.sink.iter().any(newer) {
            return false;
        }
        self.sink.push(Message::Barrier(generation));
        self.session(index).tail = self.sink.len() as u8;
        self.go(index, Step::ReadBack)
    }

    /// What is visible up to the own barrier.
    fn read_back(&mut self, index: usize) -> bool {
        let tail = usize::from(self.session(index).tail);
        let (mut found, mut files) = (0, Vec::new());
        for message in &self.sink[..if self.kind == SinkKind::Stream { tail } else { self.sink.len() }] {
            match message {
                Message::Barrier(_) => {}
                Message::Output(record) => found |= 1 << record,
                Message::File(epoch) => files.push(*epoch),
            }
        }
        (self.session(index).found, self.session(index).found_files) = (found, files);
        self.go(index, Step::Decide)
    }

    /// VX-781.
    fn decide(&mut self, index: usize) -> bool {
        let Some(view) = self.session(index).view.take() else { return false };
        let generation = self.session(index).generation;
        let last = view.commit.map_or(0, |epoch| epoch.number);
        let ledger = self.owners[index].ledger;
        self.session(index).resume = view.commit.map_or(0, |epoch| epoch.end);
        self.session(index).number = last + 1;
        let intent = view.intent.filter(|intent| intent.number == last + 1);
        if let Some(Prepared { epoch, seen_by_others }) = ledger.prepared {
            let by_number = self.lacks(Mutant::EpochWithoutDigest);
            if by_number && epoch.number == last {
                self.session(index).resume = epoch.end;
                self.owners[index].ledger = Ledger { committed: Some(epoch), prepared: None };
                return self.go(index, Step::Cut);
            }
            let decided = intent.is_some_and(|intent| {
                (intent.first, intent.end) == (epoch.first, epoch.end)
                    && intent.generation <= epoch.generation
            });
            if epoch.number == last + 1 && (decided || !self.has_intents()) {
                let stamped = Epoch { generation, ..epoch };
                if self.lacks(Mutant::IntentBeforeRestamp) {
                    return self.put_intent(index, stamped) && self.go(index, Step::StampOutbox(stamped));
                }
                self.prepare(index, stamped);
                let publish = Step::Publish(stamped, stamped.first);
                let step = if self.has_intents() { Step::StampIntent(stamped) } else { publish };
                return self.go(index, step);
            }
            // Nobody else has said anything about it.
            if epoch.number == last + 1 && !seen_by_others {
                self.broken = Some("an owner throws away what it alone has decided");
            }
        }
        // What was committed of P is finished, all else of it abandoned; the position is the store's in any case.
        self.owners[index].ledger = Ledger { committed: view.commit, prepared: None };
        match intent {
            Some(intent) if self.has_intents() => {
                self.go(index, Step::Intent(Epoch { generation, ..intent }))
            }
            _ => self.go(index, Step::Cut),
        }
    }

    fn publish(&mut self, index: usize, epoch: Epoch, record: u8) -> bool {
        match self.kind {
            SinkKind::Stream => self.publish_message(index, epoch, record),
            SinkKind::Files => self.publish_file(index, epoch),
        }
    }

    fn publish_message(&mut self, index: usize, epoch: Epoch, record: u8) -> bool {
        if record == epoch.end {
            return self.go(index, Step::Commit(epoch));
        }
        if self.session(index).found & 1 << record == 0 {
            let is_last = usize::from(self.session(index).tail) == self.sink.len();
            if !is_last && !self.lacks(Mutant::NoChain) {
                return false;
            }
            self.sink.push(Message::Output(record));
            self.session(index).tail = self.sink.len() as u8;
        }
        self.go(index, Step::Publish(epoch, record + 1))
    }

    fn publish_file(&mut self, index: usize, epoch: Epoch) -> bool {
        let name = |epoch: &Epoch| (epoch.number, epoch.first, epoch.end);
        let found = &self.session(index).found_files;
        if found.iter().any(|file| name(file) == name(&epoch)) {
            return self.go(index, Step::Commit(epoch));
        }
        let overlaps =
            |file: &Epoch| file.number == epoch.number || file.first < epoch.end && epoch.first < file.end;
        if found.iter().any(overlaps) {
            self.broken = Some("files of an epoch that was cut in another way");
            return false;
        }
        // Its directory was moved away by the barrier of a later session.
        let generation = self.session(index).generation;
        let moved = |message: &Message| matches!(message, Message::Barrier(other) if *other > generation);
        let taken = |message: &Message| matches!(message, Message::File(file) if name(file) == name(&epoch));
        if self.sink.iter().any(|message| moved(message) || taken(message)) {
            return false;
        }
        self.sink.push(Message::File(epoch));
        self.go(index, Step::Commit(epoch))
    }

    fn commit(&mut self, index: usize, epoch: Epoch) -> bool {
        let intent = self.store.intent;
        if !self.swap(index, |store| *store = Document { commit: Some(epoch), intent, ..*store }) {
            return false;
        }
        self.history.push(epoch);
        self.go(index, Step::Finish(epoch))
    }

    fn finish(&mut self, index: usize, epoch: Epoch) -> bool {
        self.owners[index].ledger = Ledger { committed: Some(epoch), prepared: None };
        let session = self.session(index);
        (session.resume, session.number) = (epoch.end, epoch.number + 1);
        if self.lacks(Mutant::ReadBackForOneEpoch) {
            self.session(index).found = 0;
        }
        self.go(index, Step::Cut)
    }

    fn put_intent(&mut self, index: usize, epoch: Epoch) -> bool {
        self.swap(index, |store| store.intent = Some(epoch))
    }

    /// Changes the document if nobody else has since (VX-710).
    fn swap(&mut self, index: usize, change: impl FnOnce(&mut Document)) -> bool {
        if !self.session(index).is_current {
            return false;
        }
        change(&mut self.store);
        self.changed(index);
        true
    }

    /// The other owner's next change is refused.
    fn changed(&mut self, index: usize) {
        if let Some(other) = &mut self.owners[1 - index].session {
            other.is_current = false;
        }
    }

    fn prepare(&mut self, index: usize, epoch: Epoch) {
        // A zombie decides for itself alone what others have decided since.
        let seen_by_others = self.store.generation > self.session(index).generation;
        self.owners[index].ledger.prepared = Some(Prepared { epoch, seen_by_others });
    }

    fn go(&mut self, index: usize, step: Step) -> bool {
        self.session(index).step = step;
        true
    }

    fn lacks(&self, rule: Mutant) -> bool {
        self.left_out.contains(&rule)
    }

    fn has_intents(&self) -> bool {
        !self.lacks(Mutant::NoIntents)
    }

    fn session(&mut self, index: usize) -> &mut Session {
        self.owners[index].session.as_mut().expect("only sessions that run make steps")
    }
}
