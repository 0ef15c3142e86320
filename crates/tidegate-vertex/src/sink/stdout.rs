//! Lines on standard output. After a crash it has again what was written since the last commit.

use std::io::{self, Write};

use super::{Class, Confirms, Delivery, Published, Sink, SinkError};
use crate::fence::{WriteGuard, WriteKind};

/// Standard output.
#[derive(Debug, Default)]
pub struct Stdout {
    buffer: Vec<u8>,
}

impl Sink for Stdout {
    fn class(&self) -> Class {
        Class::C
    }

    fn confirms(&self) -> Confirms {
        Confirms::InKernel
    }

    fn publish(&mut self, delivery: &Delivery<'_>, guard: &WriteGuard) -> Result<Published, SinkError> {
        self.buffer.clear();
        for output in delivery.outputs {
            self.buffer.extend_from_slice(&output.record.value);
            self.buffer.push(b'\n');
        }
        let mut out = io::stdout().lock();
        let permit = guard.permit(WriteKind::Sink)?;
        let written = out.write_all(&self.buffer).and_then(|()| out.flush());
        drop(permit);
        written.map_err(|source| SinkError::Stdout { source })?;
        Ok(Published::all(delivery))
    }
}
