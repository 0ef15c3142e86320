//! A worker that writes every record in capitals.
//!
//! ```sh
//! cargo build --example upper
//! tidegate vertex udf-test --udf target/debug/examples/upper --in README.md
//! ```

use tidegate_udf::{Ctx, Emit, Outcome, Record, WorkerError, worker};

fn main() -> Result<(), WorkerError> {
    worker().map("upper", upper).run()
}

fn upper(record: Record<'_>, _: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    if record.value().is_empty() {
        return Outcome::drop("an empty line");
    }
    out.record().value(&record.value().to_ascii_uppercase());
    Outcome::ok()
}
