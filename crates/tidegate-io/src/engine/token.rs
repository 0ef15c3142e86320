//! Who may write to a stream: its worker's write pump, or an application thread that sends directly (MQ-057).
//!
//! The token is one atomic word. Whoever holds it owns the write side: the descriptor's outgoing half and the rest of
//! a batch that was begun. A sender only ever tries; the pump that finds a sender at work leaves word and goes on with
//! other streams.
//!
//! ```text
//!            try_direct           release_direct(all written)
//!   FREE  ----------------> DIRECT ---------------------------> FREE
//!    ^ \                      | \  acquire_pump
//!    |  \ acquire_pump        |  ----------------> WANTED
//!    |   \                    | release_direct(rest) | release_direct
//!    |    v                   v                      v
//!   PUMP <----------------- HANDED <-----------------+      any --- close ---> CLOSED
//!         acquire_pump
//! ```
//!
//! In HANDED the write side is kept for the pump, so that nothing overtakes what the sender has left over, or what the
//! protocol has to say first ([`Token::keep_for_pump`]).

use std::marker::PhantomData;

use crate::sync::{AtomicU32, Ordering};

const FREE: u32 = 0;
const DIRECT: u32 = 1;
const WANTED: u32 = 2;
const HANDED: u32 = 3;
const PUMP: u32 = 4;
const CLOSED: u32 = 5;

/// The memory orderings of a [`Token`], which a model can weaken to show that it needs them.
pub(crate) trait Orders {
    /// Of taking the write side. Pairs with [`RELEASE`](Self::RELEASE) of whoever held it before.
    const ACQUIRE: Ordering;
    /// Of giving the write side away.
    const RELEASE: Ordering;
}

/// The orderings that are shipped.
#[derive(Debug)]
pub(crate) struct Sound;

impl Orders for Sound {
    const ACQUIRE: Ordering = Ordering::Acquire;
    const RELEASE: Ordering = Ordering::Release;
}

/// Exclusive right to write to one stream.
#[derive(Debug)]
pub(crate) struct Token<O = Sound> {
    state: AtomicU32,
    orders: PhantomData<fn() -> O>,
}

impl<O: Orders> Token<O> {
    /// A token nobody holds.
    pub(crate) fn new() -> Self {
        Self { state: AtomicU32::new(FREE), orders: PhantomData }
    }

    /// Takes the write side for a direct write, if it is free.
    #[inline]
    pub(crate) fn try_direct(&self) -> bool {
        self.step(FREE, DIRECT, O::ACQUIRE)
    }

    /// Gives the write side back after a direct write; `rest` says whether something is left to write. Returns whether
    /// the pump must be told.
    #[inline]
    pub(crate) fn release_direct(&self, rest: bool) -> bool {
        let next = if rest { HANDED } else { FREE };
        if self.step(DIRECT, next, O::RELEASE) {
            return rest;
        }
        // The pump came by meanwhile, or the stream was closed.
        self.step(WANTED, HANDED, O::RELEASE)
    }

    /// Keeps the write side for the pump, if nobody has it: what it is about to write comes before any direct write.
    pub(crate) fn keep_for_pump(&self) {
        self.step(FREE, HANDED, O::ACQUIRE);
    }

    /// Takes the write side for the pump. When this fails because of a sender, that sender will tell the pump.
    #[inline]
    pub(crate) fn acquire_pump(&self) -> bool {
        loop {
            // Relaxed: only a guess for the exchange that follows.
            match self.state.load(Ordering::Relaxed) {
                FREE if self.step(FREE, PUMP, O::ACQUIRE) => return true,
                HANDED if self.step(HANDED, PUMP, O::ACQUIRE) => return true,
                PUMP => return true,
                // Relaxed: leaves a note, takes nothing.
                DIRECT if self.step(DIRECT, WANTED, Ordering::Relaxed) => return false,
                WANTED | CLOSED => return false,
                _ => {}
            }
        }
    }

    /// Gives the write side back after the pump has nothing left to write.
    #[inline]
    pub(crate) fn release_pump(&self) {
        self.step(PUMP, FREE, O::RELEASE);
    }

    /// Nobody writes any more; a direct write under way is the last.
    pub(crate) fn close(&self) {
        // Relaxed: what the holder owns is guarded by its own lock when the stream ends.
        self.state.store(CLOSED, Ordering::Relaxed);
    }

    #[inline]
    fn step(&self, from: u32, to: u32, success: Ordering) -> bool {
        // Relaxed on failure: nothing is taken then.
        self.state.compare_exchange(from, to, success, Ordering::Relaxed).is_ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Rules: MQ-057.
    #[test]
    fn one_holder_at_a_time_and_the_pump_is_told() {
        let token = Token::<Sound>::new();
        assert!(token.try_direct());
        assert!(!token.try_direct(), "held by a sender");
        assert!(!token.acquire_pump(), "held by a sender");
        assert!(token.release_direct(false), "the pump asked meanwhile");
        assert!(!token.try_direct(), "kept for the pump");
        assert!(token.acquire_pump());
        assert!(token.acquire_pump(), "the pump may ask again");
        assert!(!token.try_direct(), "held by the pump");
        token.release_pump();
        assert!(token.try_direct());
        assert!(!token.release_direct(false), "nobody asked");
        token.keep_for_pump();
        assert!(!token.try_direct(), "the pump comes first");
        assert!(token.acquire_pump());
        token.keep_for_pump();
        token.release_pump();
        assert!(token.try_direct(), "the pump has been");
        assert!(token.release_direct(true), "a rest is the pump's");
        assert!(!token.try_direct(), "nothing overtakes the rest");
        token.close();
        assert!(!token.try_direct() && !token.acquire_pump());
    }
}

#[cfg(all(test, loom))]
mod model {
    //! Two senders and the pump over the shipped token: never two writers at once, nothing overtakes a rest, and a
    //! pump that was refused is told.

    use loom::{cell::Cell, sync::Arc, thread};

    use super::*;
    use crate::sync::AtomicBool;

    /// Gives the write side away without publishing what was done to it.
    #[derive(Debug)]
    struct Weak;

    impl Orders for Weak {
        const ACQUIRE: Ordering = Ordering::Acquire;
        const RELEASE: Ordering = Ordering::Relaxed;
    }

    struct Stream<O> {
        token: Token<O>,
        kicked: AtomicBool,
        /// How many messages were written. Loom reports accesses that are not ordered.
        written: Cell<u32>,
        /// How many wait in the write side.
        rest: Cell<u32>,
    }

    impl<O: Orders> Stream<O> {
        /// Returns whether the write went directly.
        fn send(&self, partial: bool) -> bool {
            if !self.token.try_direct() {
                return false;
            }
            assert_eq!(self.rest.get(), 0, "overtook a rest");
            if partial {
                self.rest.set(1);
            } else {
                self.written.set(self.written.get() + 1);
            }
            if self.token.release_direct(partial) {
                // Release pairs with the load in `run`.
                self.kicked.store(true, Ordering::Release);
            }
            true
        }

        fn pump(&self) {
            if self.token.acquire_pump() {
                self.written.set(self.written.get() + self.rest.replace(0));
                self.token.release_pump();
            }
        }
    }

    fn run<O: Orders + 'static>() {
        loom::model(|| {
            let stream = Arc::new(Stream::<O> {
                token: Token::new(),
                kicked: AtomicBool::new(false),
                written: Cell::new(0),
                rest: Cell::new(0),
            });
            let senders = [true, false].map(|partial| {
                let stream = stream.clone();
                thread::spawn(move || stream.send(partial))
            });
            stream.pump();
            let direct = senders.map(|sender| u32::from(sender.join().unwrap()));
            if stream.kicked.load(Ordering::Acquire) {
                stream.pump();
            }
            assert!(stream.token.try_direct(), "the write side was lost");
            assert_eq!(stream.written.get(), direct.iter().sum::<u32>(), "a rest was lost");
        });
    }

    /// Rules: MQ-057.
    #[test]
    fn the_write_side_has_one_owner() {
        run::<Sound>();
    }

    /// The model sees what it is there for.
    #[test]
    #[should_panic]
    fn without_release_a_race_is_found() {
        run::<Weak>();
    }
}
