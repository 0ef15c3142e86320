//! Drivers that start, stop, die, are in the way, or lack room.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;

use crate::support::{
    CHANNEL, DEADLINE, Node, ROLE, Role, Scratch, eventually, ready_until_told, receive, role, send,
};
use tidegate_aeron::{
    AeronError, Client, ClientOptions, Idle, MediaDriver, MediaDriverOptions, OfferError, Threading,
    driver_errors, driver_is_active,
};

/// The module path by which a child process finds a test.
macro_rules! test_name {
    ($name:ident) => {
        concat!("lifecycle::", stringify!($name))
    };
}

fn exchange(client: &Client) {
    let mut subscription = client.add_subscription(CHANNEL, 1000, DEADLINE).unwrap();
    let mut publication = client.add_publication(CHANNEL, 1000, DEADLINE).unwrap();
    send(&mut publication, b"alive");
    assert_eq!(receive(&mut subscription, 1), [b"alive"]);
}

#[test]
fn closing_a_driver_leaves_nothing_behind() {
    let Node { client, driver, scratch } = Node::start();
    exchange(&client);
    assert!(driver_is_active(scratch.path(), Duration::from_secs(5)));
    drop(client);
    driver.close().unwrap();
    assert!(!scratch.path().exists() && !scratch.lock_path().exists());
    assert!(!driver_is_active(scratch.path(), Duration::from_secs(5)));
}

#[test]
fn a_driver_that_keeps_its_directory_is_seen_to_be_closed() {
    let scratch = Scratch::new();
    let options =
        MediaDriverOptions { dir_delete_on_shutdown: false, ..MediaDriverOptions::new(scratch.path()) };
    MediaDriver::launch(&options).unwrap().close().unwrap();
    assert!(scratch.path().join("cnc.dat").exists());
    assert!(!driver_is_active(scratch.path(), Duration::from_secs(60)));

    let careful = MediaDriverOptions { dir_delete_on_start: false, ..options };
    let error = MediaDriver::launch(&careful).unwrap_err();
    assert_eq!(error, AeronError::StaleDirectory { dir: scratch.path().into() });
    MediaDriver::launch(&MediaDriverOptions { dir_delete_on_start: true, ..careful }).unwrap();
}

#[test]
fn a_live_drivers_directory_is_refused_and_left_alone() {
    let node = Node::start();
    let error = MediaDriver::launch(&MediaDriverOptions::new(node.scratch.path())).unwrap_err();
    assert!(matches!(error, AeronError::DriverActive { .. }), "{error:?}");
    exchange(&node.client);
}

/// A driver that does not know the lock, such as `aeronmd`, is recognised by its heartbeat.
#[test]
fn a_live_driver_without_a_lock_is_refused_by_its_heartbeat() {
    let node = Node::start();
    fs::remove_file(node.scratch.lock_path()).unwrap();
    let error = MediaDriver::launch(&MediaDriverOptions::new(node.scratch.path())).unwrap_err();
    let pid = Some(i64::from(std::process::id()));
    assert_eq!(error, AeronError::DriverActive { dir: node.scratch.path().into(), pid });
    exchange(&node.client);
}

#[test]
fn of_many_launches_at_once_one_wins() {
    let scratch = Scratch::new();
    let launches: Vec<_> = (0..4)
        .map(|_| {
            let options = MediaDriverOptions::new(scratch.path());
            std::thread::spawn(move || MediaDriver::launch(&options))
        })
        .collect();
    let drivers: Vec<_> = launches.into_iter().map(|launch| launch.join().unwrap()).collect();
    assert_eq!(drivers.iter().filter(|driver| driver.is_ok()).count(), 1, "{drivers:?}");
    for refused in drivers.iter().filter_map(|driver| driver.as_ref().err()) {
        assert!(matches!(refused, AeronError::DriverActive { .. }), "{refused:?}");
    }
    exchange(&Client::connect(&ClientOptions::new(scratch.path())).unwrap());
}

#[test]
fn a_directory_of_somebody_else_is_refused_and_left_alone() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path()).unwrap();
    let thesis = scratch.path().join("thesis.tex");
    fs::write(&thesis, "years of work").unwrap();
    let error = MediaDriver::launch(&MediaDriverOptions::new(scratch.path())).unwrap_err();
    assert_eq!(
        error,
        AeronError::ForeignDirectory { dir: scratch.path().into(), entry: "thesis.tex".into() }
    );
    assert_eq!(fs::read_to_string(&thesis).unwrap(), "years of work");
    assert!(!scratch.lock_path().exists());

    fs::remove_dir_all(scratch.path()).unwrap();
    fs::write(scratch.path(), "a file").unwrap();
    let error = MediaDriver::launch(&MediaDriverOptions::new(scratch.path())).unwrap_err();
    assert!(matches!(error, AeronError::Os { .. }), "{error:?}");
    fs::remove_file(scratch.path()).unwrap();
}

#[test]
fn the_client_of_a_killed_driver_notices_and_a_new_driver_takes_over_at_once() {
    if let Some((_, dir)) = role() {
        let _driver = MediaDriver::launch(&MediaDriverOptions::new(dir)).unwrap();
        return ready_until_told();
    }
    let scratch = Scratch::new();
    let name = test_name!(the_client_of_a_killed_driver_notices_and_a_new_driver_takes_over_at_once);
    let child = Role::start(name, "driver", scratch.path());
    let client = Client::connect(&ClientOptions::new(scratch.path())).unwrap();
    let mut subscription = client.add_subscription(CHANNEL, 1, DEADLINE).unwrap();
    let mut publication = client.add_publication(CHANNEL, 1, DEADLINE).unwrap();
    send(&mut publication, b"before");
    assert_eq!(receive(&mut subscription, 1), [b"before"]);

    child.kill();
    // Its heartbeat is still young, but the kernel has freed its lock.
    assert!(driver_is_active(scratch.path(), Duration::from_secs(10)));
    let driver = MediaDriver::launch(&MediaDriverOptions::new(scratch.path())).unwrap();
    exchange(&Client::connect(&ClientOptions::new(scratch.path())).unwrap());

    eventually("the client to notice", || client.is_closed());
    // The library closes the client first and says why then.
    eventually("the reason", || {
        matches!(client.failure(), Some(AeronError::ClientClosed { code: 1000, .. }))
    });
    assert_eq!(publication.offer(b"after"), Err(OfferError::Closed));
    assert!(matches!(subscription.poll(1, &mut |_| {}), Err(AeronError::ClientClosed { .. })));
    assert!(matches!(client.add_publication(CHANNEL, 2, DEADLINE), Err(AeronError::ClientClosed { .. })));

    // Nothing waits for the dead driver when its client is taken apart.
    let started = Instant::now();
    drop((publication, subscription, client));
    assert!(started.elapsed() < Duration::from_secs(2), "closing took {:?}", started.elapsed());
    driver.close().unwrap();
    assert!(!scratch.path().exists());
}

#[test]
fn a_stopped_driver_is_refused_although_its_heartbeat_is_old() {
    if let Some((_, dir)) = role() {
        let _driver = MediaDriver::launch(&MediaDriverOptions::new(dir)).unwrap();
        return ready_until_told();
    }
    let scratch = Scratch::new();
    let name = test_name!(a_stopped_driver_is_refused_although_its_heartbeat_is_old);
    let child = Role::start(name, "driver", scratch.path());
    child.signal(Signal::STOP);
    eventually("the heartbeat to age", || !driver_is_active(scratch.path(), Duration::from_millis(1_500)));
    let options = MediaDriverOptions {
        driver_timeout: Duration::from_millis(1_500),
        ..MediaDriverOptions::new(scratch.path())
    };
    let error = MediaDriver::launch(&options).unwrap_err();
    assert!(matches!(error, AeronError::DriverActive { .. }), "{error:?}");
    child.signal(Signal::CONT);
    exchange(&Client::connect(&ClientOptions::new(scratch.path())).unwrap());
    child.finish();
}

#[test]
fn the_client_of_a_closed_driver_notices_at_once() {
    let Node { client, driver, scratch: _scratch } = Node::start();
    let publication = client.add_publication(CHANNEL, 1, DEADLINE).unwrap();
    driver.close().unwrap();
    let started = Instant::now();
    eventually("the client to notice", || client.is_closed());
    assert!(started.elapsed() < Duration::from_secs(2), "noticed after {:?}", started.elapsed());
    assert!(!publication.is_connected());
}

#[test]
fn connecting_without_a_driver_fails_in_time() {
    let scratch = Scratch::new();
    let waited = Duration::from_millis(200);
    let options = ClientOptions { connect_timeout: waited, ..ClientOptions::new(scratch.path()) };
    let expected = AeronError::NoDriver { dir: scratch.path().into(), waited };
    assert_eq!(Client::connect(&options).unwrap_err(), expected);

    // Files that a driver never finishes, on which the C library waits for ever.
    fs::create_dir(scratch.path()).unwrap();
    let cnc = scratch.path().join("cnc.dat");
    for length in [0, 47, 48, 128, 4096] {
        let file = fs::File::create(&cnc).unwrap();
        file.set_len(length).unwrap();
        if length >= 48 {
            file.write_all_at(&512_i32.to_ne_bytes(), 0).unwrap();
            file.write_all_at(&i32::MAX.to_ne_bytes(), 4).unwrap();
        }
        assert_eq!(Client::connect(&options).unwrap_err(), expected, "{length} bytes");
    }
    // A file that is just being made is somebody's; an old one is nobody's.
    let launch = |driver_timeout| {
        MediaDriver::launch(&MediaDriverOptions { driver_timeout, ..MediaDriverOptions::new(scratch.path()) })
    };
    assert!(matches!(launch(Duration::from_secs(60)), Err(AeronError::DriverActive { pid: None, .. })));
    eventually("the file to age", || launch(Duration::from_millis(1)).is_ok());
}

#[test]
fn a_client_waits_for_a_driver_that_comes_later() {
    let scratch = Scratch::new();
    let options = ClientOptions { connect_timeout: DEADLINE, ..ClientOptions::new(scratch.path()) };
    let connecting = std::thread::spawn(move || Client::connect(&options));
    let _driver = MediaDriver::launch(&MediaDriverOptions::new(scratch.path())).unwrap();
    exchange(&connecting.join().unwrap().unwrap());
}

#[test]
fn options_that_cannot_work_are_refused_by_name() {
    let scratch = Scratch::new();
    let driver = || MediaDriverOptions::new(scratch.path());
    let refused = [
        MediaDriverOptions { term_buffer_length: 100_000, ..driver() },
        MediaDriverOptions { ipc_term_buffer_length: 1 << 31, ..driver() },
        MediaDriverOptions { counters_buffer_length: 1 << 10, ..driver() },
        MediaDriverOptions { idle: Idle::Sleep(Duration::ZERO), ..driver() },
        MediaDriverOptions { client_liveness_timeout: Duration::MAX, ..driver() },
        MediaDriverOptions::new(scratch.path().join("nul\0")),
    ];
    for options in refused {
        let error = MediaDriver::launch(&options).unwrap_err();
        let is_named = matches!(error, AeronError::InvalidOption { .. } | AeronError::Os { .. });
        assert!(is_named, "{error:?}");
    }
    let _driver = MediaDriver::launch(&driver()).unwrap();
    let client = || ClientOptions::new(scratch.path());
    let refused = [
        ClientOptions { driver_timeout: Duration::from_secs(1), ..client() },
        ClientOptions { conductor_idle: Duration::ZERO, ..client() },
        ClientOptions { name: "n".repeat(101), ..client() },
    ];
    for options in refused {
        let error = Client::connect(&options).unwrap_err();
        assert!(matches!(error, AeronError::InvalidOption { .. }), "{error:?}");
    }
}

#[test]
fn other_threads_and_idle_strategies_work_too() {
    for (threading, idle) in [(Threading::Dedicated, Idle::Backoff), (Threading::Shared, Idle::BusySpin)] {
        let scratch = Scratch::new();
        let options = MediaDriverOptions { threading, idle, ..MediaDriverOptions::new(scratch.path()) };
        let driver = MediaDriver::launch(&options).unwrap();
        exchange(&Client::connect(&ClientOptions::new(driver.dir())).unwrap());
    }
}

#[test]
fn network_channels_work() {
    let node = Node::start();
    let channel = "aeron:udp?endpoint=127.0.0.1:0";
    let subscription = node.client.add_subscription(channel, 1, DEADLINE);
    drop(subscription.unwrap());
    let channel = "aeron:udp?endpoint=127.0.0.1:24571";
    let mut subscription = node.client.add_subscription(channel, 1, DEADLINE).unwrap();
    let mut publication = node.client.add_publication(channel, 1, DEADLINE).unwrap();
    let message = vec![7; 40_000];
    send(&mut publication, &message);
    assert_eq!(receive(&mut subscription, 1), [message]);
}

#[test]
fn a_lock_file_that_leads_elsewhere_is_refused_and_changes_nothing() {
    let scratch = Scratch::new();
    let precious = Scratch::new();
    fs::write(precious.path(), "content").unwrap();
    let launch = || MediaDriver::launch(&MediaDriverOptions::new(scratch.path()));
    std::os::unix::fs::symlink(precious.path(), scratch.lock_path()).unwrap();
    let error = launch().unwrap_err();
    assert_eq!(error.code(), Some(-rustix::io::Errno::LOOP.raw_os_error()), "{error}");
    fs::remove_file(scratch.lock_path()).unwrap();
    fs::hard_link(precious.path(), scratch.lock_path()).unwrap();
    let error = launch().unwrap_err();
    assert!(matches!(error, AeronError::Os { operation: "use as a lock file", .. }), "{error}");
    assert_eq!(fs::read(precious.path()).unwrap(), b"content");
    fs::remove_file(precious.path()).unwrap();
    fs::remove_file(scratch.lock_path()).unwrap();
    launch().unwrap();
}

/// Opening a FIFO for reading would wait for a writer.
#[test]
fn a_fifo_in_the_place_of_the_drivers_file_blocks_nobody() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path()).unwrap();
    let fifo = scratch.path().join("cnc.dat");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    assert!(!driver_is_active(scratch.path(), DEADLINE));
    assert!(driver_errors(scratch.path()).is_err());
    let error = MediaDriver::launch(&MediaDriverOptions::new(scratch.path())).unwrap_err();
    assert!(matches!(error, AeronError::Os { .. }), "{error}");
    fs::remove_file(fifo).unwrap();
}

/// What a driver refuses it notes, and whoever may read its directory can see it, also after its death.
#[test]
fn a_drivers_own_errors_can_be_read() {
    let node = Node::start();
    assert_eq!(node.driver.errors(), Ok(Vec::new()));
    let begun = SystemTime::now() - Duration::from_secs(1);
    for _ in 0..3 {
        assert!(node.client.add_publication("aeron:carrier-pigeon", 3, DEADLINE).is_err());
    }
    assert!(node.client.add_subscription("aeron:udp?endpoint=nowhere", 3, DEADLINE).is_err());
    let errors = node.driver.errors().unwrap();
    assert_eq!(errors.len(), 2, "{errors:#?}");
    assert!(errors[0].text.contains("carrier-pigeon") && errors[0].count == 3, "{errors:#?}");
    assert!(errors[1].text.contains("nowhere") && errors[1].count == 1, "{errors:#?}");
    for error in &errors {
        assert!(begun <= error.first && error.first <= error.last && error.last <= SystemTime::now());
    }
    assert_eq!(driver_errors(node.scratch.path()), Ok(errors));
    assert_eq!(driver_errors(Path::new("/nowhere")), Ok(Vec::new()));
}

/// A file system of 8 MiB, in a mount namespace of the child process.
#[test]
fn a_full_file_system_is_reported_with_numbers() {
    if let Some((_, dir)) = role() {
        let error = MediaDriver::launch(&MediaDriverOptions::new(dir.join("driver"))).unwrap_err();
        assert!(
            matches!(error, AeronError::NoSpace { needed, available, .. } if available <= 8 << 20 && needed > 8 << 20),
            "{error:?}"
        );
        assert_eq!(fs::read_dir(dir).unwrap().count(), 0, "something was left behind");
        println!("ready");
        return;
    }
    let scratch = Scratch::new();
    fs::create_dir(scratch.path()).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=8m tmpfs {dir} && exec {exe} {test} --exact --nocapture",
        dir = scratch.path().display(),
        exe = std::env::current_exe().unwrap().display(),
        test = test_name!(a_full_file_system_is_reported_with_numbers),
    );
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let output = unshare
        .args(["--mount", "sh", "-c", &script])
        .env(ROLE, format!("launcher {}", scratch.path().display()))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("ready"), "{out}{err}");
}

/// A whole life with a stale directory, a refused publication and a lost client prints nothing.
#[test]
fn the_c_library_prints_nothing() {
    let test = test_name!(the_c_library_prints_nothing);
    if let Some((role, dir)) = role() {
        let driver = MediaDriver::launch(&MediaDriverOptions::new(&dir)).unwrap();
        let client = Client::connect(&ClientOptions::new(&dir)).unwrap();
        exchange(&client);
        assert!(client.add_publication("aeron:carrier-pigeon", 1, DEADLINE).is_err());
        if role == "second" {
            driver.close().unwrap();
            eventually("the client to notice", || client.is_closed());
        }
        return ready_until_told();
    }
    let scratch = Scratch::new();
    Role::start(test, "first", scratch.path()).kill();
    assert!(scratch.path().join("cnc.dat").exists());
    let printed = Role::start(test, "second", scratch.path()).finish();
    assert_eq!(printed, "");
    assert_no_leftovers(scratch.path());
}

/// The C driver would save the errors of the driver before it beside the directory.
fn assert_no_leftovers(dir: &Path) {
    let prefix = dir.file_name().unwrap().to_str().unwrap();
    let parent = dir.parent().unwrap();
    let left: Vec<_> = fs::read_dir(parent)
        .unwrap()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.file_name())
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// Guards against spinning: the default driver thread sleeps between its rounds.
#[test]
fn an_idle_driver_sleeps() {
    let node = Node::start();
    let before = cpu_time("aeron-md-shd");
    let started = Instant::now();
    eventually("half a second", || started.elapsed() > Duration::from_millis(500));
    let used = cpu_time("aeron-md-shd").saturating_sub(before);
    let share = used.as_secs_f64() / started.elapsed().as_secs_f64();
    println!("the idle driver used {:.2} % of a core", share * 100.0);
    assert!(share < 0.05, "the idle driver used {:.1} % of a core", share * 100.0);
    drop(node);
}

/// CPU time of the threads of this process with this name.
fn cpu_time(name: &str) -> Duration {
    let mut total = Duration::ZERO;
    for task in fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok) {
        let Ok(comm) = fs::read_to_string(task.path().join("comm")) else { continue };
        let Ok(stat) = fs::read_to_string(task.path().join("schedstat")) else { continue };
        if comm.trim() == name {
            total += Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap());
        }
    }
    total
}

#[test]
fn a_forbidden_directory_is_a_permission_error() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path()).unwrap();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let options = MediaDriverOptions::new(scratch.path().join("driver"));
    let launching = std::thread::spawn(move || {
        // Root may write everywhere, so this thread becomes somebody else.
        if rustix::process::geteuid().is_root() {
            let nobody = rustix::process::Uid::from_raw(65_534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        }
        MediaDriver::launch(&options)
    });
    let error = launching.join().unwrap().unwrap_err();
    assert!(matches!(error, AeronError::Permission { .. }), "{error:?}");
}
