//! The blocks of a channel, found by the names of their files.

use std::{fs, mem::offset_of};

use tidegate_hub::{
    block::{AttachOptions, Block, CreateOptions, FindError, Role, create, find},
    layout::{BlockSpec, ChannelName, Secret, SecurityLevel, pages::ControlPage},
};
use tidegate_shm::sync::Ordering::Relaxed;

use crate::{Blocks, name_of, set_state, spec};

fn found(blocks: &Blocks, channel: &str) -> Result<Vec<String>, FindError> {
    let found = find(&ChannelName::new(channel).unwrap(), &blocks.options(Role::Consumer))?;
    Ok(found.into_iter().map(|found| found.name).collect())
}

fn of(blocks: &Blocks, channel: &str) -> Block {
    let spec = BlockSpec { channel: ChannelName::new(channel).unwrap(), ..spec() };
    create(&spec, &blocks.create_options()).unwrap()
}

/// Only blocks that are in use, and of no other channel, whatever else lies beside them.
#[test]
fn the_blocks_of_a_channel_are_those_in_use_and_of_its_name() {
    let blocks = Blocks::new();
    assert_eq!(found(&blocks, "camera").unwrap(), [""; 0]);
    let block = blocks.create();
    let name = name_of(&block);
    let (_longer, _other) = (of(&blocks, "camera_left"), of(&blocks, "lidar"));
    for stray in ["camera", "tidegate_camera_", "tidegate_camera_0123456z", "tidegate_camera_012345678"] {
        fs::write(blocks.dir.path().join(stray), "nothing").unwrap();
    }
    assert_eq!(found(&blocks, "camera").unwrap(), [name.as_str()]);
    let second = blocks.create();
    let mut both = [name.clone(), name_of(&second)];
    both.sort();
    assert_eq!(found(&blocks, "camera").unwrap(), both);
    // One that takes no more data, beside one that does and alone.
    set_state(&second, 3);
    assert_eq!(found(&blocks, "camera").unwrap(), [name.as_str()]);
    set_state(&block, 3);
    assert_eq!(found(&blocks, "camera").unwrap(), both);
    set_state(&block, 2);
    // One that is being made, and one that is over.
    set_state(&second, 1);
    assert_eq!(found(&blocks, "camera").unwrap(), [name.as_str()]);
    set_state(&second, 4);
    assert_eq!(found(&blocks, "camera").unwrap(), [name.as_str()]);
    fs::remove_file(block.path()).unwrap();
    assert_eq!(found(&blocks, "camera").unwrap(), [""; 0]);
    drop(block);
    // Two whose files are called alike.
    let (dot, line) = (of(&blocks, "rig.left"), of(&blocks, "rig_left"));
    for (channel, block) in [("rig.left", &dot), ("rig_left", &line)] {
        assert_eq!(found(&blocks, channel).unwrap(), [name_of(block)]);
    }
}

/// Which of two blocks is the channel is what the old one says.
///
/// Rules: DH-225.
#[test]
fn a_successor_is_the_channel_once_the_block_before_says_so() {
    let blocks = Blocks::new();
    let old = blocks.create();
    let next = [(); 2].map(|()| {
        let spec = BlockSpec { predecessor: Some(old.descriptor().uuid), ..spec() };
        create(&spec, &blocks.create_options()).unwrap()
    });
    let control = old.writer_views().unwrap().control;
    let successor = control.row().bytes::<{ offset_of!(ControlPage, successor_uuid) }, 16>();
    successor.write_at(0, next[0].descriptor().uuid.as_bytes()).unwrap();
    // None, prepared, cut, done, cancelled.
    for (state, channel) in [(0, &old), (1, &old), (2, &next[0]), (3, &next[0]), (4, &old)] {
        control.row().u32::<{ offset_of!(ControlPage, handover_state) }>().store(state, Relaxed);
        assert_eq!(found(&blocks, "camera").unwrap(), [name_of(channel)], "{state}");
    }
}

/// Neither a channel whose files are called alike, and that asks for a key, nor what others put there keeps one from the
/// channel.
#[test]
fn what_others_have_there_is_passed_over() {
    let blocks = Blocks::new();
    let secret = Secret::new(&[7; 32]).unwrap();
    let locked = BlockSpec {
        channel: ChannelName::new("rig_left").unwrap(),
        security: SecurityLevel::AttachTag,
        ..spec()
    };
    let _locked =
        create(&locked, &CreateOptions { secret: Some(&secret), ..blocks.create_options() }).unwrap();
    let file = |digits| blocks.dir.path().join(format!("tidegate_rig_left_{digits}"));
    std::os::unix::fs::symlink("nowhere", file("00000000")).unwrap();
    fs::create_dir(file("00000001")).unwrap();
    assert_eq!(found(&blocks, "rig.left").unwrap(), [""; 0]);
    let block = of(&blocks, "rig.left");
    assert_eq!(found(&blocks, "rig.left").unwrap(), [name_of(&block)]);
    // Who means the other channel is told that it needs a key.
    assert!(matches!(found(&blocks, "rig_left"), Err(FindError::Attach { .. })));
}

/// What may be the channel and cannot be looked at is not passed over.
#[test]
fn a_block_that_cannot_be_looked_at_is_an_error_with_its_name() {
    let blocks = Blocks::new();
    let block = blocks.create();
    let _rest = blocks.create();
    fs::File::options().write(true).open(block.path()).unwrap().set_len(4095).unwrap();
    let error = found(&blocks, "camera").unwrap_err();
    assert!(matches!(&error, FindError::Attach { name, .. } if *name == name_of(&block)), "{error}");
    let options =
        AttachOptions { dir: blocks.dir.path().join("nowhere"), ..AttachOptions::new(Role::Consumer) };
    let error = find(&ChannelName::new("camera").unwrap(), &options).unwrap_err();
    assert!(matches!(&error, FindError::Dir { dir, .. } if dir.ends_with("nowhere")), "{error}");
}
