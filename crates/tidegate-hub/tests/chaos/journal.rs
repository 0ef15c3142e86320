//! What a process that may be killed at any moment writes down: a file of numbers and of runs of ids. Each change is one
//! write to one page, which is there completely or not at all.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
};

/// Words before the runs.
pub(crate) const WORDS: usize = 8;

/// First word of a reader: 1 + the first id it was promised. Of a producer: 1 + the first id it was to give away.
pub(crate) const START: usize = 0;
/// 1: it ended as it should.
pub(crate) const ENDED: usize = 1;
/// Reader: ids that it was told were lost.
pub(crate) const LOST: usize = 2;
/// Reader of the newest value: values read, and 1 + the last id.
pub(crate) const COUNT: usize = 3;
pub(crate) const LAST: usize = 4;
/// Producer: first id of what is about to be committed, and how many.
pub(crate) const PENDING: usize = 5;
pub(crate) const PENDING_COUNT: usize = 6;
/// Producer: ids given up on purpose.
pub(crate) const ABORTED: usize = 7;

/// The writing side.
pub(crate) struct Journal {
    file: File,
    runs: u64,
    last: Option<(u64, u64)>,
}

impl Journal {
    pub(crate) fn create(path: &Path) -> Self {
        let file = OpenOptions::new().write(true).create_new(true).open(path).unwrap();
        file.write_all_at(&[0; WORDS * 8], 0).unwrap();
        Self { file, runs: 0, last: None }
    }

    pub(crate) fn put(&self, word: usize, value: u64) {
        self.file.write_all_at(&value.to_le_bytes(), word as u64 * 8).unwrap();
    }

    /// What is about to be committed, in one write.
    pub(crate) fn pending(&self, first: u64, count: u64) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&first.to_le_bytes());
        bytes[8..].copy_from_slice(&count.to_le_bytes());
        self.file.write_all_at(&bytes, PENDING as u64 * 8).unwrap();
    }

    /// Adds `count` ids from `first` on.
    pub(crate) fn add(&mut self, first: u64, count: u64) {
        let run = match self.last {
            Some((start, end)) if end + 1 == first => (start, end + count),
            _ => {
                self.runs += 1;
                (first, first + count - 1)
            }
        };
        self.last = Some(run);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&run.0.to_le_bytes());
        bytes[8..].copy_from_slice(&run.1.to_le_bytes());
        self.file.write_all_at(&bytes, WORDS as u64 * 8 + (self.runs - 1) * 16).unwrap();
    }
}

/// What was written down.
#[derive(Debug, Clone, Default)]
pub(crate) struct Written {
    pub(crate) words: [u64; WORDS],
    /// First and last id of each run.
    pub(crate) runs: Vec<(u64, u64)>,
}

impl Written {
    pub(crate) fn read(path: &Path) -> Self {
        // Killed before it wrote anything is the same as never having come.
        let bytes = std::fs::read(path).unwrap_or_default();
        let mut numbers =
            bytes.as_chunks::<8>().0.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect::<Vec<_>>();
        numbers.resize(numbers.len().max(WORDS), 0);
        let (words, runs) = numbers.split_at(WORDS);
        let runs = runs.as_chunks::<2>().0.iter().map(|[first, last]| (*first, *last)).collect();
        Self { words: words.try_into().unwrap(), runs }
    }
}
