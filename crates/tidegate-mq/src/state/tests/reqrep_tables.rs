//! The tables of 6.3 and 6.4, told naively, against the state machine.

use proptest::prelude::*;

use super::{
    model::{Pipes, ReceiveLane, SendLane, Table, run},
    tables::{FULL, hand_down, limits, steps},
    *,
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    /// Rules: MQ-191, MQ-193, MQ-194, MQ-195, MQ-196, MQ-197.
    #[test]
    fn req_follows_its_table(bits in 0_u8..16, limits in limits(), steps in steps()) {
        run::<Req>(bits, limits, &steps);
    }

    /// Rules: MQ-191, MQ-200, MQ-201, MQ-435.
    #[test]
    fn rep_follows_its_table(bits in 0_u8..2, limits in limits(), steps in steps()) {
        run::<Rep>(bits, limits, &steps);
    }
}

struct Req {
    out: SendLane,
    next_id: u32,
    state: Asking,
}

enum Asking {
    Idle,
    Wait { carrier: Option<usize>, id: Option<u32>, request: Frames, resent: u32, reply: Option<Frames> },
    Failed,
}

impl Default for Req {
    fn default() -> Self {
        Self { out: SendLane::default(), next_id: 7, state: Asking::Idle }
    }
}

impl Req {
    fn lose(&mut self, pipes: &mut Pipes, at: usize) {
        let Asking::Wait { carrier, id, reply: None, .. } = &mut self.state else { return };
        if *carrier != Some(at) {
            return;
        }
        match pipes.settings.req_on_peer_loss {
            OnPeerLoss::Fail => self.state = Asking::Failed,
            OnPeerLoss::Resend if id.is_some() => {
                *carrier = None;
                self.resend(pipes);
            }
            _ => {}
        }
    }

    fn resend(&mut self, pipes: &mut Pipes) {
        let Asking::Wait { carrier: carrier @ None, request, resent, .. } = &mut self.state else { return };
        if *resent == pipes.settings.req_resend_max {
            self.state = Asking::Failed;
        } else if let Some(at) = self.out.send(pipes, request.clone()) {
            *carrier = Some(at);
            *resent += 1;
        }
    }
}

impl Table for Req {
    const KIND: SocketType = SocketType::Req;

    fn options(settings: &mut Settings, bits: u8) {
        settings.req_relaxed = bits & 1 != 0;
        settings.req_correlate = bits & 2 != 0;
        settings.req_on_peer_loss =
            [OnPeerLoss::Wait, OnPeerLoss::Fail, OnPeerLoss::Resend, OnPeerLoss::Resend]
                [usize::from(bits / 4 % 4)];
        settings.req_resend_max = 2;
    }

    fn incoming(&self, a: u8, number: u32) -> Frames {
        let body = format!("reply {number}").into_bytes();
        let id = self.next_id - 1;
        match a % 10 {
            0..=2 => vec![Vec::new(), body],
            3..=5 => vec![id.to_be_bytes().to_vec(), Vec::new(), body],
            6 => vec![(id - 1).to_be_bytes().to_vec(), Vec::new(), body.clone(), body],
            7 => vec![body],
            8 => vec![Vec::new()],
            _ => vec![b"abc".to_vec(), Vec::new(), body],
        }
    }

    fn opened(&mut self, pipes: &mut Pipes, at: usize) {
        self.out.join(pipes, at);
        self.resend(pipes);
    }

    fn up(&mut self, pipes: &mut Pipes, at: usize) -> bool {
        self.out.join(pipes, at);
        true
    }

    fn lost(&mut self, pipes: &mut Pipes, at: usize) {
        if let Asking::Wait { request, .. } = &self.state
            && !pipes.all[at].out.contains(request)
        {
            self.lose(pipes, at);
        }
    }

    fn closing(&mut self, pipes: &mut Pipes, at: usize) {
        self.out.0.leave(at);
        self.lose(pipes, at);
    }

    fn forget_received(&mut self, pipes: &mut Pipes, at: usize) {
        if let Asking::Wait { carrier, reply, .. } = &mut self.state
            && *carrier == Some(at)
            && reply.take().is_some()
        {
            self.lose(pipes, at);
        }
    }

    fn room(&mut self, pipes: &mut Pipes, at: usize) {
        self.out.join(pipes, at);
        self.resend(pipes);
    }

    fn received(&mut self, _: &mut Pipes, at: usize, parts: Frames) -> Result<(), Violation> {
        let delimiter = parts.iter().position(Vec::is_empty);
        let (came, body) = match delimiter {
            Some(0) if parts.len() > 1 => (None, parts[1..].to_vec()),
            Some(1) if parts.len() > 2 && parts[0].len() == 4 => (
                Some(u32::from_be_bytes([parts[0][0], parts[0][1], parts[0][2], parts[0][3]])),
                parts[2..].to_vec(),
            ),
            _ => return Err(Violation::MalformedReply),
        };
        if let Asking::Wait { carrier: Some(carrier), id, reply: reply @ None, .. } = &mut self.state
            && *carrier == at
            && *id == came
        {
            *reply = Some(body);
        }
        Ok(())
    }

    fn send(&mut self, pipes: &mut Pipes, mut parts: Frames) -> Result<(), SendRefusal> {
        if !matches!(self.state, Asking::Idle) && !pipes.settings.req_relaxed {
            return Err(SendRefusal::WrongState);
        }
        parts.insert(0, Vec::new());
        let id = pipes.settings.req_correlate.then_some(self.next_id);
        if let Some(id) = id {
            parts.insert(0, id.to_be_bytes().to_vec());
        }
        let carrier = Some(self.out.send(pipes, parts.clone()).ok_or(FULL)?);
        self.next_id += 1;
        self.state = Asking::Wait { carrier, id, request: parts, resent: 0, reply: None };
        Ok(())
    }

    fn recv(&mut self, _: &mut Pipes) -> Result<Frames, RecvRefusal> {
        match std::mem::replace(&mut self.state, Asking::Idle) {
            Asking::Idle => Err(RecvRefusal::WrongState),
            Asking::Failed => Err(RecvRefusal::PeerLost),
            Asking::Wait { reply: Some(reply), .. } => Ok(reply),
            waiting => {
                self.state = waiting;
                Err(RecvRefusal::WouldBlock)
            }
        }
    }
}

#[derive(Default)]
struct Rep {
    incoming: ReceiveLane,
    /// The connection and the envelope of the request in hand.
    owed: Option<(usize, Peer, Frames)>,
}

impl Table for Rep {
    const KIND: SocketType = SocketType::Rep;

    fn options(settings: &mut Settings, bits: u8) {
        settings.rep_report_drop = bits & 1 != 0;
    }

    fn incoming(&self, a: u8, number: u32) -> Frames {
        let body = format!("ask {number}").into_bytes();
        match a % 6 {
            0 | 1 => vec![Vec::new(), body],
            2 => vec![b"hop".to_vec(), b"hop 2".to_vec(), Vec::new(), body.clone(), Vec::new(), body],
            3 => vec![body],
            4 => vec![b"no".to_vec(), body],
            _ => vec![body, Vec::new()],
        }
    }

    fn opened(&mut self, _: &mut Pipes, _: usize) {}

    fn up(&mut self, _: &mut Pipes, _: usize) -> bool {
        true
    }

    fn lost(&mut self, pipes: &mut Pipes, at: usize) {
        hand_down(&mut self.incoming, pipes, at);
    }

    fn closing(&mut self, _: &mut Pipes, _: usize) {}

    fn forget_received(&mut self, _: &mut Pipes, at: usize) {
        self.incoming.0.leave(at);
    }

    fn received(&mut self, pipes: &mut Pipes, at: usize, parts: Frames) -> Result<(), Violation> {
        if parts.iter().rev().skip(1).any(Vec::is_empty) {
            self.incoming.arrive(pipes, at, parts);
        }
        Ok(())
    }

    fn send(&mut self, pipes: &mut Pipes, parts: Frames) -> Result<(), SendRefusal> {
        let (at, peer, envelope) = self.owed.take().ok_or(SendRefusal::WrongState)?;
        let pipe = &pipes.all[at];
        let reports = pipes.settings.rep_report_drop;
        if !pipe.open || !pipe.up || pipe.peer != peer {
            return if reports { Err(SendRefusal::PeerGone) } else { Ok(()) };
        }
        if !pipe.takes() {
            if reports {
                self.owed = Some((at, peer, envelope));
                return Err(SendRefusal::ReplyWouldBlock);
            }
            return Ok(());
        }
        pipes.queue(at, [envelope, parts].concat());
        Ok(())
    }

    fn recv(&mut self, pipes: &mut Pipes) -> Result<Frames, RecvRefusal> {
        if self.owed.is_some() {
            return Err(RecvRefusal::WrongState);
        }
        let (at, mut parts) = self.incoming.next(pipes).ok_or(RecvRefusal::WouldBlock)?;
        let delimiter = parts.iter().position(Vec::is_empty).expect("was looked at when it arrived");
        let body = parts.split_off(delimiter + 1);
        self.owed = Some((at, pipes.all[at].peer, parts));
        Ok(body)
    }
}
