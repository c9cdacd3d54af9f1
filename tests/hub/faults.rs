//! What the network, the server and whatever lies between them can do wrong.

use super::server::{Reply, Repo, Server, git_sum, sha256};
use super::{Setting, TOKEN, WEIGHTS, faulty, fixture, is_the_model, repo, starts};
use std::fs;
use std::time::{Duration, Instant};
use vitadapt::error::HubError;

/// Another server, for the contents of large files.
fn storage() -> Server {
    let repo = repo();
    Server::start(move |request, _| repo.storage_answer(request))
}

#[test]
fn passing_faults_are_waited_out() {
    for status in [408, 429, 500, 502, 503, 504] {
        let server = faulty(move |_, earlier| (earlier == 0).then(|| Reply::status(status)));
        is_the_model(&Setting::new(&server.url).fetch("acme/vit").unwrap());
    }
}

#[test]
fn a_lasting_fault_ends_after_the_attempts() {
    let server = faulty(|_, _| Some(Reply::status(503)));
    let error = Setting::new(&server.url).failure();
    assert!(matches!(&error, HubError::Unreachable { attempts: 3, reason, .. } if reason.contains("503")), "{error}");
    assert_eq!(server.connections(), 3);
}

#[test]
fn the_wait_that_the_server_asks_for_is_kept() {
    let limit = |seconds: &'static str| {
        faulty(move |r, earlier| {
            (r.gets(WEIGHTS) && earlier == 0).then(|| Reply::status(429).with("retry-after", seconds))
        })
    };
    let (server, start) = (limit("1"), Instant::now());
    is_the_model(&Setting::new(&server.url).fetch("acme/vit").unwrap());
    assert!(start.elapsed() >= Duration::from_secs(1));
    let server = limit("3600");
    assert!(matches!(Setting::new(&server.url).failure(), HubError::Unreachable { attempts: 1, .. }));
}

#[test]
fn pages_in_place_of_answers_are_no_hub() {
    let page = || Reply::status(200).with("content-type", "text/html").body("<html>please log in</html>");
    let server = faulty(move |_, _| Some(page()));
    let error = Setting::new(&server.url).failure();
    assert!(matches!(error, HubError::Protocol { .. }), "{error}");
    // Once the file has been described, a page has the wrong size, and is not taken for a beginning of the file.
    let server = faulty(move |r, _| r.gets(WEIGHTS).then(page));
    let setting = Setting::new(&server.url);
    let error = setting.failure();
    assert!(matches!(error, HubError::Damaged { .. }), "{error}");
    assert_eq!(error.exit_code() as u8, 5);
    assert_eq!(setting.blobs(), [git_sum(&fixture("config.json"))]);
    assert!(!setting.path("refs/main").exists(), "a snapshot that is half there has no name");
}

#[test]
fn a_transfer_that_is_cut_goes_on_where_it_stopped() {
    let server =
        faulty(|r, earlier| (r.gets(WEIGHTS) && earlier == 0).then(|| Reply { cut: Some(1000), ..repo().answer(r) }));
    is_the_model(&Setting::new(&server.url).fetch("acme/vit").unwrap());
    assert_eq!(starts(&server), [None, Some(1000)]);
}

#[test]
fn the_next_run_goes_on_where_the_last_one_was_killed() {
    let server = Server::of(&repo());
    let setting = Setting::new(&server.url);
    let contents = fixture(WEIGHTS);
    let partial = setting.path("blobs").join(format!("{}.incomplete", sha256(&contents)));
    fs::create_dir_all(partial.parent().unwrap()).unwrap();
    fs::write(&partial, &contents[..5000]).unwrap();
    is_the_model(&setting.fetch("acme/vit").unwrap());
    assert_eq!(starts(&server), [Some(5000)]);
    assert!(!partial.exists());
}

#[test]
fn a_complete_partial_file_is_only_verified() {
    let server = Server::of(&repo());
    let setting = Setting::new(&server.url);
    let contents = fixture(WEIGHTS);
    let partial = setting.path("blobs").join(format!("{}.incomplete", sha256(&contents)));
    fs::create_dir_all(partial.parent().unwrap()).unwrap();
    fs::write(&partial, &contents).unwrap();
    is_the_model(&setting.fetch("acme/vit").unwrap());
    assert_eq!(starts(&server), []);
}

#[test]
fn a_spoilt_partial_file_is_thrown_away() {
    for spoilt in [vec![7; 5000], vec![7; 1_000_000], vec![7; fixture(WEIGHTS).len()]] {
        let server = Server::of(&repo());
        let setting = Setting::new(&server.url);
        let partial = setting.path("blobs").join(format!("{}.incomplete", sha256(&fixture(WEIGHTS))));
        fs::create_dir_all(partial.parent().unwrap()).unwrap();
        fs::write(&partial, spoilt).unwrap();
        is_the_model(&setting.fetch("acme/vit").unwrap());
        assert_eq!(starts(&server).last(), Some(&None));
    }
}

#[test]
fn a_server_may_ignore_ranges() {
    let server = faulty(|r, earlier| {
        r.gets(WEIGHTS).then(|| {
            let whole = Reply::status(200).body(fixture(WEIGHTS));
            if earlier == 0 { Reply { cut: Some(1000), ..whole } } else { whole }
        })
    });
    is_the_model(&Setting::new(&server.url).fetch("acme/vit").unwrap());
    assert_eq!(starts(&server), [None, Some(1000)]);
}

#[test]
fn a_range_that_was_not_asked_for_is_refused() {
    let server = faulty(|r, earlier| {
        r.gets(WEIGHTS).then(|| match earlier {
            0 => Reply { cut: Some(1000), ..repo().answer(r) },
            _ => repo().answer(r).with("content-range", "bytes 0-99/100"),
        })
    });
    let error = Setting::new(&server.url).failure();
    assert!(matches!(&error, HubError::Protocol { reason, .. } if reason.contains("bytes 0-99/100")), "{error}");
}

#[test]
fn other_contents_than_announced_are_not_kept() {
    let wrong = |length: usize| vec![7; length];
    let size = fixture(WEIGHTS).len();
    for contents in [wrong(size), wrong(size + 1), wrong(10 * size)] {
        let server = faulty(move |r, _| r.gets(WEIGHTS).then(|| Reply::status(200).body(contents.clone())));
        let setting = Setting::new(&server.url);
        let error = setting.failure();
        assert!(matches!(error, HubError::Damaged { .. }), "{error}");
        assert_eq!(starts(&server).len(), 2, "a second try, no third");
        assert_eq!(setting.blobs(), [git_sum(&fixture("config.json"))], "no partial file is left");
    }
}

#[test]
fn small_files_are_verified_too() {
    let server = faulty(|r, _| r.gets("config.json").then(|| Reply::status(200).body(vec![b' '; 799])));
    let setting = Setting::new(&server.url);
    assert!(matches!(setting.failure(), HubError::Damaged { .. }));
    assert_eq!(setting.blobs(), <[String; 0]>::default());
}

#[test]
fn a_server_that_stalls_is_given_up() {
    let stall = Some(Duration::from_secs(3));
    // Before the answer, and in the middle of the contents.
    let silent = Server::start(move |_, _| {
        std::thread::sleep(Duration::from_secs(3));
        Reply::status(200)
    });
    let halting = faulty(move |r, _| {
        r.gets(WEIGHTS).then(|| Reply { cut: Some(10), stall, ..Reply::status(200).body(fixture(WEIGHTS)) })
    });
    for server in [silent, halting] {
        let start = Instant::now();
        let error = Setting::new(&server.url).failure();
        assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}

#[test]
fn a_drip_of_bytes_ends() {
    let drip = Some(Duration::from_millis(50));
    let server = faulty(move |r, _| r.gets(WEIGHTS).then(|| Reply { drip, ..repo().answer(r) }));
    let start = Instant::now();
    // Every attempt waits for two seconds.
    let error = Setting { attempts: 1, ..Setting::new(&server.url) }.failure();
    assert!(matches!(&error, HubError::Unreachable { reason, .. } if reason.contains("bytes in 2 s")), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn a_file_without_a_size_is_read_to_a_bound() {
    let server = faulty(|r, _| {
        let endless = || repo().answer(r).with("content-length", "").without("x-linked-size");
        r.names("config.json")
            .then(|| if r.gets("config.json") { endless().body(vec![b' '; 65 << 20]) } else { endless() })
    });
    let setting = Setting::new(&server.url);
    let error = setting.failure();
    assert!(matches!(&error, HubError::Damaged { reason, .. } if reason.contains("none are announced")), "{error}");
    assert_eq!(setting.blobs(), <[String; 0]>::default());
}

#[test]
fn the_token_stays_with_its_host() {
    let storage = storage();
    let hub = Server::of(&Repo { storage: Some(storage.url.clone()), ..repo() });
    let setting = Setting::new(&hub.url).set("HF_TOKEN", TOKEN);
    is_the_model(&setting.fetch("acme/vit").unwrap());
    assert!(hub.seen().iter().all(|r| r.header("authorization") == Some("Bearer hf_VerySecret")));
    assert!(hub.seen().iter().all(|r| r.header("accept-encoding") == Some("identity")));
    let stored = storage.seen();
    assert!(stored.len() == 1 && stored[0].header("authorization").is_none(), "{stored:?}");
}

#[test]
fn neither_token_nor_signature_is_shown() {
    let storage = Server::start(|_, _| Reply::status(500));
    let hub = Server::of(&Repo { storage: Some(storage.url.clone()), ..repo() });
    let setting = Setting::new(&hub.url).set("HF_TOKEN", TOKEN);
    assert!(matches!(setting.failure(), HubError::Unreachable { .. }));
    let mut files = vec![setting.folder.path().to_path_buf()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
        } else {
            assert!(!String::from_utf8_lossy(&fs::read(&path).unwrap()).contains("VerySecret"), "{path:?}");
        }
    }
}

#[test]
fn redirects_on_the_hub_itself_are_followed() {
    let server = faulty(|r, _| {
        let moved = r.path.strip_prefix("/acme/vit/").map(|rest| format!("/acme/renamed/{rest}"));
        moved.map(|to| Reply::status(307).with("location", to))
    });
    let setting = Setting::new(&server.url).set("HF_TOKEN", TOKEN);
    is_the_model(&setting.fetch("acme/vit").unwrap());
    assert!(server.seen().iter().all(|r| r.header("authorization").is_some()));
}

#[test]
fn storage_may_be_on_the_hub_itself() {
    let repo = Repo { storage: Some(String::new()), ..repo() };
    let server = Server::start(move |request, _| {
        if request.path.starts_with("/blob/") { repo.storage_answer(request) } else { repo.answer(request) }
    });
    is_the_model(&Setting::new(&server.url).fetch("acme/vit").unwrap());
}

#[test]
fn compressed_and_unverifiable_answers_are_refused() {
    let server = faulty(|r, _| r.gets(WEIGHTS).then(|| repo().answer(r).with("content-encoding", "gzip")));
    let error = Setting::new(&server.url).failure();
    assert!(matches!(&error, HubError::Protocol { reason, .. } if reason.contains("gzip")), "{error}");
    let server = faulty(|r, _| Some(repo().answer(r).without("etag").without("x-linked-etag")));
    let error = Setting::new(&server.url).failure();
    assert!(matches!(&error, HubError::Protocol { reason, .. } if reason.contains("ETag")), "{error}");
    let server = faulty(|r, _| Some(repo().answer(r).with("etag", "\"v1\"").without("x-linked-etag")));
    assert!(matches!(Setting::new(&server.url).failure(), HubError::Protocol { .. }));
    let server = faulty(|r, _| Some(repo().answer(r).with("x-repo-commit", "../../../etc")));
    assert!(matches!(Setting::new(&server.url).failure(), HubError::Protocol { .. }));
}

#[test]
fn redirects_end() {
    let server = faulty(|r, _| Some(Reply::status(302).with("location", r.path.clone())));
    let error = Setting::new(&server.url).failure();
    assert!(matches!(&error, HubError::Protocol { reason, .. } if reason.contains("endlessly")), "{error}");
    assert!(server.connections() <= 11);
}

#[test]
fn refusals_say_what_to_do() {
    let refusal = |status: u16, code: &'static str, token: bool| {
        let server = faulty(move |_, _| Some(Reply::status(status).with("x-error-code", code)));
        let setting = Setting::new(&server.url);
        let error = if token { setting.set("HF_TOKEN", TOKEN).failure() } else { setting.failure() };
        assert_eq!(error.exit_code() as u8, 5);
        (format!("{error}\n{}", error.hint().unwrap_or_default()), error)
    };
    let (text, error) = refusal(401, "GatedRepo", false);
    assert!(matches!(error, HubError::Gated { .. }) && text.contains("accept the licence at http"), "{text}");
    assert!(text.contains("/acme/vit") && text.contains("HF_TOKEN"), "{text}");
    assert!(matches!(refusal(403, "GatedRepo", true).1, HubError::Gated { with_token: true, .. }));
    let (text, error) = refusal(401, "RepoNotFound", false);
    assert!(matches!(error, HubError::NoRepository { .. }) && text.contains("local folder"), "{text}");
    assert!(matches!(refusal(404, "RepoNotFound", true).1, HubError::NoRepository { with_token: true, .. }));
    assert!(matches!(refusal(404, "", false).1, HubError::NoRepository { .. }));
    let (text, error) = refusal(401, "", true);
    assert!(matches!(error, HubError::Refused { status: 401, .. }) && text.contains("expired"), "{text}");
    assert!(matches!(refusal(403, "", true).1, HubError::Refused { status: 403, .. }));
    let (text, error) = refusal(404, "RevisionNotFound", false);
    assert!(matches!(error, HubError::NoRevision { .. }) && text.contains("\"main\""), "{text}");
}
