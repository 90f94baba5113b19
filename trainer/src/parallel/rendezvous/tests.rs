use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use super::*;

const ID: [u8; TOKEN] = [7; TOKEN];

fn place(variables: &[(&str, &str)]) -> Result<Place, MeetingError> {
    Place::read(&|name| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    })
}

/// Rank 0 of so many, with its listener on a free port.
fn lead(ranks: usize) -> (Meeting, TcpListener) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let mut place = place(&[("MASTER_ADDR", "127.0.0.1")]).expect("an address");
    place.port = listener.local_addr().expect("bound").port();
    let version = "0.1.0".to_owned();
    (Meeting { rank: 0, ranks, place, version, patience: Duration::from_secs(20) }, listener)
}

fn as_rank(meeting: &Meeting, rank: usize) -> Meeting {
    Meeting { rank, ..meeting.clone() }
}

#[test]
fn all_get_the_token() {
    let (zero, listener) = lead(4);
    scope(|scope| {
        let guests: Vec<_> = (1..4)
            .map(|rank| {
                scope.spawn({
                    let guest = as_rank(&zero, rank);
                    move || join(&guest)
                })
            })
            .collect();
        host(&zero, &listener, &ID).expect("all come");
        for guest in guests {
            assert_eq!(guest.join().expect("no panic").expect("a token"), ID);
        }
    });
}

#[test]
fn a_rank_may_be_there_before_rank_0() {
    let (zero, listener) = lead(2);
    drop(listener);
    scope(|scope| {
        let guest = as_rank(&zero, 1);
        let guest = scope.spawn(move || join(&guest));
        sleep(Duration::from_millis(300));
        let listener = listen(&zero).expect("the port is free");
        host(&zero, &listener, &ID).expect("it comes");
        assert_eq!(guest.join().expect("no panic").expect("a token"), ID);
    });
}

/// Rank 0 names the rank, and so does every rank that is there.
#[test]
fn contradictions_are_named() {
    type Case<'a> = (fn(&mut Meeting), &'a str);
    let cases: [Case; 4] = [
        (|guest| guest.ranks = 4, "a rank says that it is rank 2 of 4, but rank 0 is one of 3"),
        (
            |guest| guest.version = "9.9.9".to_owned(),
            "rank 2 is version 9.9.9 of this program, rank 0 is version 0.1.0",
        ),
        (|guest| guest.rank = 1, "two processes say that they are rank 1"),
        (|guest| guest.rank = 3, "a rank says that it is rank 3 of 3, but rank 0 is one of 3"),
    ];
    for (change, expected) in cases {
        let (zero, listener) = lead(3);
        let (good, mut bad) = (as_rank(&zero, 1), as_rank(&zero, 2));
        change(&mut bad);
        scope(|scope| {
            let good = scope.spawn(move || join(&good));
            // The good one first: of two it is the second that is too many.
            sleep(Duration::from_millis(200));
            let bad = scope.spawn(move || {
                sleep(Duration::from_millis(300));
                join(&bad)
            });
            let found = host(&zero, &listener, &ID).expect_err("they contradict");
            assert_eq!(found.to_string(), expected);
            for guest in [good, bad] {
                let refused = guest.join().expect("no panic").expect_err("refused");
                assert_eq!(refused.to_string(), format!("rank 0 has refused this rank: {expected}"));
            }
        });
    }
}

#[test]
fn who_does_not_come_is_named() {
    let (zero, listener) = lead(4);
    let zero = Meeting { patience: Duration::from_millis(600), ..zero };
    scope(|scope| {
        let guest = as_rank(&zero, 2);
        let guest = scope.spawn(move || join(&guest));
        let found = host(&zero, &listener, &ID).expect_err("two are missing").to_string();
        assert_eq!(found, format!("ranks 1, 3 did not come to `{}` within 0 s", zero.place.shown()));
        assert!(guest.join().expect("no panic").is_err());
    });
    drop(listener);
    let alone = join(&as_rank(&zero, 1)).expect_err("nobody listens");
    assert!(alone.to_string().starts_with("rank 0 was not reached at `127.0.0.1:"), "{alone}");
}

/// Strangers, silence, and a rank of the run before: none of them counts, none keeps the others waiting.
#[test]
fn strangers_do_not_matter() {
    let (zero, listener) = lead(3);
    let at = ("127.0.0.1", zero.place.port);
    let mut old = as_rank(&zero, 1);
    old.place.run = [9; 32];
    let mut silent: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(at).expect("accepted")).collect();
    silent[0].write_all(MAGIC).expect("sent");
    drop(silent.pop());
    let mut loud = TcpStream::connect(at).expect("accepted");
    loud.write_all(&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(4)).expect("sent");
    let started = Instant::now();
    scope(|scope| {
        let old = scope.spawn(move || join(&old));
        let guests: Vec<_> = (1..3)
            .map(|rank| {
                scope.spawn({
                    let guest = as_rank(&zero, rank);
                    move || {
                        sleep(Duration::from_millis(200));
                        join(&guest)
                    }
                })
            })
            .collect();
        host(&zero, &listener, &ID).expect("both come");
        assert_eq!(
            old.join().expect("no panic").expect_err("refused").to_string(),
            "rank 0 has refused this rank: a rank of another run was here"
        );
        assert!(guests.into_iter().all(|guest| guest.join().expect("no panic").is_ok()));
    });
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

/// A rank whose connection broke before the answer comes again.
#[test]
fn a_rank_may_come_again() {
    let (zero, listener) = lead(3);
    scope(|scope| {
        let hello = as_rank(&zero, 1).hello().to_bytes();
        let mut first = TcpStream::connect(("127.0.0.1", zero.place.port)).expect("accepted");
        first.write_all(&hello).expect("sent");
        let guests = scope.spawn({
            let (again, other) = (as_rank(&zero, 1), as_rank(&zero, 2));
            move || {
                sleep(Duration::from_millis(200));
                drop(first);
                sleep(Duration::from_millis(50));
                scope_of_two(&again, &other)
            }
        });
        host(&zero, &listener, &ID).expect("both come");
        assert!(guests.join().expect("no panic"));
    });
}

fn scope_of_two(one: &Meeting, other: &Meeting) -> bool {
    scope(|scope| {
        let one = scope.spawn(|| join(one).is_ok());
        join(other).is_ok() && one.join().expect("no panic")
    })
}

/// Whoever answers in the place of rank 0 cannot make a rank take more than a reason.
#[test]
fn an_answer_is_bounded() {
    let (zero, listener) = lead(2);
    scope(|scope| {
        let guest = as_rank(&zero, 1);
        let guest = scope.spawn(move || join(&guest));
        let (mut stream, _) = listener.accept().expect("it comes");
        let mut hello = [0; HELLO];
        stream.read_exact(&mut hello).expect("a hello");
        assert_eq!(Hello::from_bytes(&hello), Some(as_rank(&zero, 1).hello()));
        let _ = stream.write_all(&[1, 0xff, 0xff]).and_then(|()| stream.write_all(&vec![b'x'; 65535]));
        drop(stream);
        let refused = guest.join().expect("no panic").expect_err("refused").to_string();
        assert_eq!(refused.len(), "rank 0 has refused this rank: ".len() + MOST_REASON);
    });
}

#[test]
fn the_place_is_that_of_the_launcher() {
    let torch = [("MASTER_ADDR", "node1"), ("MASTER_PORT", "4000")];
    let agent = [&torch[..], &[("TORCHELASTIC_USE_AGENT_STORE", "True")]].concat();
    let last = [("MASTER_ADDR", "a"), ("MASTER_PORT", "65535"), ("TORCHELASTIC_USE_AGENT_STORE", "True")];
    let pet = [("PET_MASTER_ADDR", "job-node-0-0.job"), ("PET_MASTER_PORT", "29500")];
    let own = [&agent[..], &[("SEEDCORN_MASTER_PORT", "77")]].concat();
    let shown = |variables: &[(&str, &str)]| place(variables).map(|place| place.shown());
    assert_eq!(shown(&torch).expect("a place"), "node1:4000");
    assert_eq!(shown(&agent).expect("a place"), "node1:4001");
    assert_eq!(shown(&last).expect("a place"), "a:65534");
    assert_eq!(shown(&pet).expect("a place"), "job-node-0-0.job:29500");
    assert_eq!(shown(&own).expect("a place"), "node1:77");
    assert_eq!(shown(&torch[..1]).expect("a place"), "node1:29500");
    assert_eq!(shown(&torch[1..]).expect_err("no address").to_string(), "`MASTER_ADDR` is not set");
    for port in ["0", "-1", "65536", "http"] {
        let error = shown(&[torch[0], ("MASTER_PORT", port)]).expect_err("no port");
        assert_eq!(
            error.to_string(),
            format!("`MASTER_PORT` is `{port}`, which is not a port from 1 to 65535")
        );
    }
    // Every restart of torchrun is a run of its own.
    let of = |count: &str| place(&[torch[0], ("TORCHELASTIC_RESTART_COUNT", count)]).expect("a place").run;
    assert!(of("0") == of("0") && of("0") != of("1"));
}
