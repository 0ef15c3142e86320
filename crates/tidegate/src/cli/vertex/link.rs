//! The tensor streams of a pipeline, linked to their nodes.

use std::path::Path;

use tidegate::vertex::config::Pipeline;

use super::super::session::{DriverArgs, Session};
use crate::output::{Exit, Stop, VertexExit};

/// Says to each stream of a pipeline where its driver is. A sink's stream is made when its name is new.
pub(super) fn link(pipeline: &mut Pipeline) -> Result<(), Stop> {
    for end in pipeline.streams() {
        let linked = session(end.dir).and_then(|session| {
            let stream = session.resolve(&end.stream.name, end.writes)?;
            session.check_served(stream)?;
            Ok(session.link(stream))
        });
        end.stream.link = Some(Box::new(linked.map_err(unavailable)?));
    }
    Ok(())
}

fn session(dir: Option<&Path>) -> Result<Session, Stop> {
    Session::open(&DriverArgs { dir: dir.map(Path::to_owned), aeron_dir: None, config: None })
}

/// A service that is needed at the start and is not there (VX-860).
fn unavailable(stop: Stop) -> Stop {
    match stop {
        Stop::Error { code, message, .. } => {
            Stop::Error { exit: Exit::Vertex(VertexExit::Unavailable), code, message }
        }
        stop => stop,
    }
}
