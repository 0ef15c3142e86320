//! `tidegate mq bench`, without the programs that may not be there.

use crate::run;

#[test]
fn every_measurement_has_a_result() {
    let args =
        ["bench", "--without-libzmq", "--repetitions", "1", "--time", "50ms", "--sizes", "64", "--json"];
    let results = run(&args, "").exits(0).results();
    let (summary, measures) = results.split_last().expect("results");
    assert_eq!(measures.len(), 7);
    for measure in measures {
        let rate = measure["messages_per_s"]["median"].as_f64();
        let trip = measure["p50_ns"]["median"].as_f64();
        assert!(rate.or(trip).is_some_and(|value| value > 0.0), "{measure}");
        assert_eq!(measure["runs"].as_array().map(Vec::len), Some(1));
    }
    assert_eq!(summary["summary"], true);
    assert!(summary["driver"].is_string() && summary["kernel"].is_string(), "{summary}");
}

#[test]
fn a_program_that_cannot_measure_is_left_out() {
    let args = ["bench", "--without-libzmq", "--repetitions", "1", "--time", "50ms", "--sizes", "64"];
    let outcome =
        run(&[&args[..], &["--only", "inproc-trip", "--peer", "nobody=/bin/false"]].concat(), "").exits(0);
    assert!(outcome.stderr.contains("nobody cannot do inproc_trip"), "{}", outcome.stderr);
    run(&[&args[..], &["--peer", "nobody=/no/such/program"]].concat(), "").exits(1);
}
