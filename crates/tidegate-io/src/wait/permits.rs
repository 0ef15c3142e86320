//! See [`Permits`].

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use super::{Decision, Ticket, Waiters, Wakes};
use crate::sync::{Arc, Mutex, lock};

/// A budget of bytes that several sockets draw from (MQ-061, MQ-066).
///
/// Permits are given in the order in which they were asked for, while less than the limit is held; the last one may
/// exceed it, so that no amount is too large. Lock order: the lock inside is taken last and never while waking.
#[derive(Clone, Debug)]
pub struct Permits {
    shared: Arc<Mutex<Budget>>,
}

#[derive(Debug)]
struct Budget {
    held: usize,
    limit: usize,
    waiters: Waiters<usize>,
}

impl Permits {
    /// A budget of `limit` bytes; 0 means no limit.
    pub fn new(limit: usize) -> Self {
        Self { shared: Arc::new(Mutex::new(Budget { held: 0, limit, waiters: Waiters::new() })) }
    }

    /// Takes `bytes` if that is possible now and nobody waits.
    pub fn try_acquire(&self, bytes: usize) -> Option<Permit> {
        let mut budget = lock(&self.shared);
        let free = budget.waiters.is_empty() && budget.has_room();
        free.then(|| {
            budget.held += bytes;
            self.permit(bytes)
        })
    }

    /// Waits in line for `bytes`. Dropping the future gives the place up, and the permit if it was given meanwhile.
    pub fn acquire(&self, bytes: usize) -> Acquire {
        Acquire { permits: self.clone(), bytes, ticket: None }
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        lock(&self.shared).held
    }

    fn permit(&self, bytes: usize) -> Permit {
        Permit { permits: self.clone(), bytes }
    }

    fn release(&self, bytes: usize) {
        let mut wakes = Wakes::new();
        let mut budget = lock(&self.shared);
        budget.held -= bytes;
        budget.grant(&mut wakes);
        drop(budget);
        wakes.fire();
    }
}

impl Budget {
    fn has_room(&self) -> bool {
        self.limit == 0 || self.held < self.limit
    }

    /// Gives permits to those at the front of the line. They are held from now on, so that nobody overtakes.
    fn grant(&mut self, wakes: &mut Wakes) {
        let Self { held, limit, waiters } = self;
        waiters.grant(wakes, |wanted| {
            if *limit != 0 && *held >= *limit {
                return Decision::Stop;
            }
            *held += *wanted;
            Decision::Grant
        });
    }
}

/// Some bytes of a budget, given back when dropped.
#[derive(Debug)]
#[must_use = "dropping a permit gives the bytes back"]
pub struct Permit {
    permits: Permits,
    bytes: usize,
}

impl Permit {
    /// How many bytes it stands for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permits.release(self.bytes);
    }
}

/// Future of [`Permits::acquire`].
#[derive(Debug)]
pub struct Acquire {
    permits: Permits,
    bytes: usize,
    ticket: Option<Ticket>,
}

impl Future for Acquire {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Permit> {
        let this = &mut *self;
        let mut budget = lock(&this.permits.shared);
        match this.ticket.take() {
            None if budget.waiters.is_empty() && budget.has_room() => budget.held += this.bytes,
            None => {
                this.ticket = Some(budget.waiters.join(this.bytes, context.waker()));
                return Poll::Pending;
            }
            Some(ticket) if budget.waiters.is_granted(&ticket, context.waker()) => {
                budget.waiters.finish(ticket);
            }
            Some(ticket) => {
                this.ticket = Some(ticket);
                return Poll::Pending;
            }
        }
        drop(budget);
        Poll::Ready(this.permits.permit(this.bytes))
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let mut wakes = Wakes::new();
        let mut budget = lock(&self.permits.shared);
        if budget.waiters.leave(ticket) {
            budget.held -= self.bytes;
        }
        budget.grant(&mut wakes);
        drop(budget);
        wakes.fire();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        task::Waker,
        thread,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::wait::block_on;

    fn poll(acquire: &mut Acquire) -> Option<Permit> {
        match Pin::new(acquire).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    /// Rules: MQ-060, MQ-061.
    #[test]
    fn permits_are_given_in_order_while_below_the_limit() {
        let permits = Permits::new(100);
        let first = permits.try_acquire(60).unwrap();
        let large = permits.try_acquire(1000).unwrap();
        assert!(permits.try_acquire(1).is_none());
        let [mut a, mut b] = [permits.acquire(99), permits.acquire(1)];
        assert!(poll(&mut a).is_none() && poll(&mut b).is_none());
        drop(first);
        assert!(poll(&mut b).is_none(), "1060 - 60 is not below 100");
        drop(large);
        // Both were given at once: a is below the limit.
        assert_eq!(permits.held(), 100);
        assert!(permits.try_acquire(1).is_none());
        let held = (poll(&mut b).unwrap(), poll(&mut a).unwrap());
        drop(held);
        assert_eq!(permits.held(), 0);
    }

    /// Rules: MQ-061, MQ-076.
    #[test]
    fn giving_up_returns_place_and_permit() {
        let permits = Permits::new(10);
        let held = permits.try_acquire(10).unwrap();
        let [mut a, mut b, mut c] = [(); 3].map(|()| permits.acquire(10));
        assert!(poll(&mut a).is_none() && poll(&mut b).is_none() && poll(&mut c).is_none());
        drop(b);
        drop(held);
        assert_eq!(permits.held(), 10);
        // Given to a, who does not want it any more.
        drop(a);
        assert_eq!(poll(&mut c).map(|permit| permit.bytes()), Some(10));
        assert_eq!(permits.held(), 0);
    }

    /// Rules: MQ-061.
    #[test]
    fn no_permit_is_lost_when_threads_give_up_at_any_time() {
        let permits = Permits::new(3);
        let end = Instant::now() + Duration::from_secs(60);
        thread::scope(|scope| {
            for thread in 0..4_u32 {
                let permits = &permits;
                scope.spawn(move || {
                    for round in 0..5_000_u32 {
                        let patience = Duration::from_micros(u64::from((thread * 7 + round * 13) % 40));
                        let bytes = 1 + (round % 3) as usize;
                        let permit = block_on(permits.acquire(bytes), Some(Instant::now() + patience));
                        assert!(permits.held() < 6, "at most one above the limit");
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!(permits.held(), 0);
        assert!(block_on(permits.acquire(1), Some(end)).is_some());
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let permits = Permits::new(0);
        let all: Vec<_> = (0..100).map(|_| permits.try_acquire(usize::MAX / 200).unwrap()).collect();
        drop(all);
        assert_eq!(permits.held(), 0);
    }
}
