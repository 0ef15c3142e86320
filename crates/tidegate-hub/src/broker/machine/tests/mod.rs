//! The tables of chapter 13, row by row, against a host that says what the test wants.

mod attacks;
mod bench;
mod extensions;
mod gates;
mod handover;
mod register;
