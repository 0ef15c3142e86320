//! Running a duty cycle.
//!
//! An [`Agent`] does a little work each time it is asked and never blocks (TP-437). An [`AgentRunner`] asks it from a
//! thread of its own and sleeps between calls that found nothing to do; in invoker mode the application calls
//! [`Agent::do_work`] itself.

use std::error::Error;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tidegate_shm::sync::{Arc, AtomicBool, Ordering, spin_loop};

/// A duty cycle.
pub trait Agent: Send {
    /// What ends the agent.
    type Error: Error + Send + 'static;

    /// Name for threads and logs.
    fn name(&self) -> &str;

    /// Does what is due and returns how much that was; 0 means idle. Never blocks.
    ///
    /// # Errors
    /// When the agent cannot go on. It is not called again, only closed.
    fn do_work(&mut self) -> Result<usize, Self::Error>;

    /// Releases what the agent holds, with its notices. Called once, also after an error.
    fn close(&mut self);
}

/// What to do when a duty cycle found nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleStrategy {
    /// Sleep in the kernel this long. Costs one timer wake-up per period; adds up to one period of latency.
    Sleep(Duration),
    /// Spin `spins` times after the last work, then sleep, doubling from 1 us up to `max`. Low latency under load, cheap
    /// when idle.
    Backoff {
        /// Empty cycles to spin through before sleeping.
        spins: u32,
        /// Longest sleep.
        max: Duration,
    },
    /// Never sleep: lowest latency, one core busy.
    BusySpin,
}

impl Default for IdleStrategy {
    /// 1 ms, as the specification's default for agents (chapter 23.4).
    fn default() -> Self {
        Self::Sleep(Duration::from_millis(1))
    }
}

impl IdleStrategy {
    /// A stateful idler for one loop.
    #[must_use]
    pub fn idler(self) -> Idler {
        Idler { strategy: self, empty: 0 }
    }
}

/// The state of an [`IdleStrategy`] in one loop.
#[derive(Debug)]
pub struct Idler {
    strategy: IdleStrategy,
    empty: u32,
}

impl Idler {
    /// Call after each duty cycle with the work it did.
    pub fn idle(&mut self, work: usize) {
        if work > 0 {
            self.empty = 0;
            return;
        }
        self.empty = self.empty.saturating_add(1);
        match self.strategy {
            IdleStrategy::Sleep(period) => thread::park_timeout(period),
            IdleStrategy::BusySpin => spin_loop(),
            IdleStrategy::Backoff { spins, max } => match self.empty.checked_sub(spins) {
                None | Some(0) => spin_loop(),
                Some(over) => {
                    let micros = 1u64 << over.saturating_sub(1).min(20);
                    thread::park_timeout(Duration::from_micros(micros).min(max));
                }
            },
        }
    }
}

/// How an agent's thread ended, when not by [`AgentRunner::stop`] alone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunnerError<E: Error + 'static> {
    /// The thread could not be started.
    #[error("cannot start the thread of agent {name}: {source}")]
    Spawn {
        /// The agent.
        name: String,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The agent ended with an error.
    #[error(transparent)]
    Agent(E),
    /// The agent panicked: a defect.
    #[error("agent {name} panicked; this is a defect, please report it")]
    Panicked {
        /// The agent.
        name: String,
    },
}

/// Runs an agent on a thread of its own until stopped, dropped, or the agent fails.
#[derive(Debug)]
pub struct AgentRunner<E: Error + Send + 'static> {
    name: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), E>>>,
}

impl<E: Error + Send + 'static> AgentRunner<E> {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`RunnerError::Spawn`].
    pub fn start<A>(mut agent: A, idle: IdleStrategy) -> Result<Self, RunnerError<E>>
    where
        A: Agent<Error = E> + 'static,
    {
        let name = agent.name().to_owned();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                let mut idler = idle.idler();
                let mut outcome = Ok(());
                // Acquire: pairs with the Release in `signal`, so that what the stopper did before is seen by `close`.
                while !stopped.load(Ordering::Acquire) {
                    match agent.do_work() {
                        Ok(work) => idler.idle(work),
                        Err(error) => {
                            outcome = Err(error);
                            break;
                        }
                    }
                }
                agent.close();
                outcome
            })
            .map_err(|source| RunnerError::Spawn { name: name.clone(), source })?;
        Ok(Self { name, stop, thread: Some(thread) })
    }

    /// Whether the agent still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends the loop, closes the agent and waits for both.
    ///
    /// # Errors
    /// The error the agent ended with, if it did.
    pub fn stop(mut self) -> Result<(), RunnerError<E>> {
        self.signal();
        match self.thread.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(RunnerError::Agent(error)),
            Some(Err(_)) => Err(RunnerError::Panicked { name: std::mem::take(&mut self.name) }),
        }
    }

    fn signal(&self) {
        // Release: pairs with the Acquire load in the loop.
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl<E: Error + Send + 'static> Drop for AgentRunner<E> {
    fn drop(&mut self) {
        self.signal();
        if let Some(thread) = self.thread.take() {
            // The outcome has no receiver here; `stop` is the way to learn it.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::time::Instant;

    use super::*;

    #[derive(Debug, PartialEq, thiserror::Error)]
    #[error("no more")]
    struct NoMore;

    /// What an agent does in its duty cycle.
    type Cycle = fn(u32) -> Result<usize, NoMore>;

    /// Reports each of its calls by name.
    struct Probe {
        calls: Sender<String>,
        cycles: u32,
        cycle: Cycle,
    }

    impl Agent for Probe {
        type Error = NoMore;

        fn name(&self) -> &str {
            "probe"
        }

        fn do_work(&mut self) -> Result<usize, NoMore> {
            self.cycles += 1;
            if self.cycles == 1 {
                let _ = self.calls.send(format!("works on {:?}", thread::current().name()));
            }
            (self.cycle)(self.cycles)
        }

        fn close(&mut self) {
            let _ = self.calls.send("closes".to_owned());
        }
    }

    fn run(idle: IdleStrategy, cycle: Cycle) -> (AgentRunner<NoMore>, impl Iterator<Item = String>) {
        let (calls, called) = channel();
        let runner = AgentRunner::start(Probe { calls, cycles: 0, cycle }, idle).unwrap();
        (runner, std::iter::from_fn(move || called.recv_timeout(Duration::from_secs(20)).ok()))
    }

    const WORKS: &str = "works on Some(\"probe\")";

    #[test]
    fn a_runner_works_until_it_is_stopped_and_closes_once() {
        for idle in [
            IdleStrategy::default(),
            IdleStrategy::BusySpin,
            IdleStrategy::Backoff { spins: 2, max: Duration::from_millis(1) },
        ] {
            let (runner, mut calls) = run(idle, |_| Ok(0));
            assert_eq!(calls.next().as_deref(), Some(WORKS));
            assert!(runner.is_running());
            runner.stop().unwrap();
            assert_eq!(calls.collect::<Vec<_>>(), ["closes"], "{idle:?}");
        }
    }

    /// Stopping wakes a thread that sleeps between its cycles.
    #[test]
    fn stopping_does_not_wait_for_the_end_of_a_sleep() {
        let (runner, mut calls) = run(IdleStrategy::Sleep(Duration::from_secs(3_600)), |_| Ok(0));
        assert_eq!(calls.next().as_deref(), Some(WORKS));
        let begun = Instant::now();
        drop(runner);
        assert!(begun.elapsed() < Duration::from_secs(60));
        assert_eq!(calls.collect::<Vec<_>>(), ["closes"]);
    }

    #[test]
    fn an_agent_that_fails_is_closed_and_its_error_is_kept() {
        let (runner, calls) =
            run(IdleStrategy::BusySpin, |cycle| if cycle < 3 { Ok(1) } else { Err(NoMore) });
        assert_eq!(calls.collect::<Vec<_>>(), [WORKS, "closes"]);
        assert!(matches!(runner.stop(), Err(RunnerError::Agent(NoMore))));
    }

    #[test]
    fn a_panic_is_reported_as_the_defect_it_is() {
        let (runner, calls) = run(IdleStrategy::BusySpin, |_| panic!("by intention"));
        assert_eq!(calls.collect::<Vec<_>>(), [WORKS]);
        match runner.stop() {
            Err(RunnerError::Panicked { name }) => assert_eq!(name, "probe"),
            other => panic!("{other:?}"),
        }
    }
}
