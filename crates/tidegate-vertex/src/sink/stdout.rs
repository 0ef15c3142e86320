//! Lines on standard output. After a crash it has again what was written since the last commit.

use std::io::{self, Write};

use super::{Class, Confirms, Delivery, Output, Published, Sink, SinkError};
use crate::{
    failpoint::{self, Point},
    fence::{WriteGuard, WriteKind},
};

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
        let (before, behind) = delivery.outputs.split_at(delivery.outputs.len() / 2);
        // In one write, but for tests that end the process in the middle.
        if cfg!(feature = "failpoints") {
            self.write(before, guard)?;
            failpoint::at(Point::HalfVisible);
            self.write(behind, guard)?;
        } else {
            self.write(delivery.outputs, guard)?;
        }
        Ok(Published::all(delivery))
    }
}

impl Stdout {
    fn write(&mut self, outputs: &[Output], guard: &WriteGuard) -> Result<(), SinkError> {
        self.buffer.clear();
        for output in outputs {
            self.buffer.extend_from_slice(&output.record.value);
            self.buffer.push(b'\n');
        }
        let mut out = io::stdout().lock();
        let permit = guard.permit(WriteKind::Sink)?;
        let written = out.write_all(&self.buffer).and_then(|()| out.flush());
        drop(permit);
        written.map_err(|source| SinkError::Stdout { source })
    }
}
