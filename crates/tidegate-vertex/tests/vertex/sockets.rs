//! A vertex that reads a ZeroMQ socket.

use tidegate_mq::{Context, Message, Push};

use crate::world::{World, wait_for};

/// What is no record is none of the inputs, and is told all the same.
/// Rules: VX-003, VX-862.
#[test]
fn messages_of_another_form_are_counted_by_the_vertex() {
    let world = World::new();
    let endpoint = format!("ipc://{}", world.path("socket").display());
    let source = format!("kind = \"zmq\"\npattern = \"pull\"\nbind = [{endpoint:?}]");
    let vertex = world.start("upper", "", &source).unwrap();
    let (stop, control) = (vertex.stop_handle(), vertex.control());
    let running = std::thread::spawn(move || vertex.run());
    let context = Context::new();
    let push = Push::new(&context).unwrap();
    push.connect(&endpoint).unwrap();
    for _ in 0..3 {
        push.send_blocking(Message::from_iter(["two", "parts"])).unwrap();
    }
    push.send_blocking("one").unwrap();
    wait_for("the last message", || control.status().counts.delivered == 1);
    assert_eq!(control.status().counts.left_out, 3);
    stop.drain();
    let report = running.join().unwrap().unwrap();
    assert_eq!((report.read, report.left_out), (1, 3), "{report:?}");
    assert_eq!(world.lines(), ["UPPER ONE"]);
}
