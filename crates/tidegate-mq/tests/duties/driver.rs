//! Which driver serves a context.

use std::process::Command;

use tidegate_mq::{Context, ContextOptions, Driver, DriverChoice, Pull};

use super::rig::{ANYWHERE, options};

const VARIABLE: &str = "TIDEGATE_MQ_DRIVER";
const CHILD: &str = "TIDEGATE_TEST_EXPECTS";

fn name(choice: Option<DriverChoice>) -> &'static str {
    let mut how = ContextOptions::default();
    if let Some(choice) = choice {
        how.driver = choice;
    }
    let context = Context::with_options(how);
    Pull::with_options(&context, options()).unwrap().bind_blocking(ANYWHERE).unwrap();
    context.driver().unwrap().name()
}

/// The driver can be chosen by an option, or from outside by the environment, and a context tells which it has.
///
/// Rules: MQ-038.
#[test]
fn a_driver_can_be_asked_for() {
    if let Ok(expected) = std::env::var(CHILD) {
        assert_eq!(name(None), expected);
        // The program knows better.
        assert_eq!(name(Some(DriverChoice::Polling)), Driver::Polling.name());
        return;
    }
    assert_eq!(name(Some(DriverChoice::IoUring)), Driver::IoUring.name());
    assert_eq!(name(Some(DriverChoice::Polling)), Driver::Polling.name());
    for expected in ["io_uring", "polling"] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "driver::a_driver_can_be_asked_for", "--nocapture"]);
        let output = child.env(VARIABLE, expected).env(CHILD, expected).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("1 passed"), "{expected}: {said}");
    }
}
