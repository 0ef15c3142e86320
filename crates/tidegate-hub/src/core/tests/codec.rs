use crate::core::codec::{Claim, Ctl, Reg, RowState, SlotId, SlotState, Transition};

/// Rules: DH-048, S-07.
#[test]
fn a_control_word_is_the_tag_and_the_state() {
    let ctl = Ctl::new(SlotId(1042).tag(), SlotState::Committed);
    assert_eq!((ctl.0, ctl.tag(), ctl.state()), (0x209A, 1043, Some(SlotState::Committed)));
    assert_eq!([5, 6, 7].map(|code| Ctl(code).state()), [None; 3]);
    assert_eq!((SlotId::of_tag(0), SlotId::of_tag(1)), (None, Some(SlotId(0))));
}

#[test]
fn a_row_word_is_the_epoch_and_the_state() {
    let reg = Reg::new(7, RowState::Evicted);
    assert_eq!((reg.0, reg.epoch(), reg.state()), (0x704, 7, Some(RowState::Evicted)));
    assert_eq!(Reg(5).state(), None);
}

/// Rules: S-07.
#[test]
fn a_claim_covers_exactly_its_ids() {
    assert_eq!(Claim::new(SlotId(1042), 1).0, 0x0412_0001);
    for first in [0, 1042, (1 << 48) - 1, 1 << 48] {
        for count in [1, 8, 65_535] {
            let claim = Claim::new(SlotId(first), count);
            let near = (first.saturating_sub(3)..first + 3)
                .chain((first + u64::from(count)).saturating_sub(3)..first + u64::from(count) + 3);
            for id in near {
                let inside = (first..first + u64::from(count)).contains(&id);
                assert_eq!(claim.covers(SlotId(id)), inside, "{id} in {count} from {first}");
            }
            assert!(!claim.is_none());
        }
    }
    assert!(Claim::NONE.is_none() && !Claim::NONE.covers(SlotId(0)));
    assert!(Claim::new(SlotId(0), 1).covers(SlotId(1 << 48)), "a needless yes is allowed");
}

/// All pairs of states and transitions; only T1 to T10 exist.
/// Rules: DH-045.
#[test]
fn no_other_transition_exists() {
    use SlotState::{Committed, Draining, Free, Quarantined, Writing};
    let legal = [
        (Free, Transition::Take(6), Writing),
        (Committed, Transition::Take(6), Writing),
        (Draining, Transition::Take(6), Writing),
        (Committed, Transition::Drain, Draining),
        (Draining, Transition::Restore, Committed),
        (Writing, Transition::Commit, Committed),
        (Writing, Transition::Abort, Free),
        (Draining, Transition::Discard, Free),
        (Writing, Transition::Quarantine, Quarantined),
        (Quarantined, Transition::EndQuarantine, Free),
    ];
    for state in [Free, Writing, Committed, Draining, Quarantined] {
        for (_, transition, _) in legal {
            let expected = legal.iter().find(|(from, step, _)| *from == state && *step == transition);
            let tag = if matches!(transition, Transition::Take(_)) { 6 } else { 5 };
            let expected = expected.map(|(_, _, to)| Ctl::new(tag, *to));
            assert_eq!(Ctl::new(5, state).after(transition), expected, "{state:?} {transition:?}");
        }
        assert_eq!(Ctl::new(5, state).after(Transition::Take(5)), None, "a tag is used once");
    }
    assert_eq!(Ctl(5 << 3 | 6).after(Transition::Take(9)), None);
}
