//! stdin: empty unless asked for, carried byte by byte with `-i`, and never waited for.

mod on_both {
    use std::time::Duration;

    use bulkhead_tests::{Stdin, World, image};

    #[test]
    fn is_empty_without_i() {
        let world = World::new();
        let input = Stdin::Bytes(b"not for the guest\n".to_vec());
        world.run([&image::busybox(), "cat"]).stdin(input).output().exits(0).prints("");
    }

    #[test]
    fn reaches_the_guest_with_i_and_ends_where_it_ends() {
        let world = World::new();
        let input = Stdin::Bytes(b"one\ntwo\n".to_vec());
        world
            .run(["-i", &image::busybox(), "sh", "-c", "cat; echo end"])
            .stdin(input)
            .output()
            .exits(0)
            .prints("one\ntwo\nend\n");
    }

    #[test]
    fn carries_megabytes_unchanged() {
        let world = World::new();
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let outcome = world.run(["-i", &image::busybox(), "cat"]).stdin(Stdin::Bytes(bytes.clone())).output();
        outcome.exits(0);
        assert_eq!(outcome.stdout.len(), bytes.len());
        assert!(outcome.stdout == bytes, "the bytes differ");
    }

    #[test]
    fn may_stay_open_when_the_guest_ends() {
        let world = World::new();
        let outcome =
            world.run(["-i", &image::busybox(), "sh", "-c", "echo done; exit 4"]).stdin(Stdin::Open).spawn().wait();
        outcome.exits(4).prints("done\n");
    }

    #[test]
    fn may_stay_open_without_i() {
        let world = World::new();
        let outcome = world.run([&image::busybox(), "cat"]).stdin(Stdin::Open).spawn().wait();
        outcome.exits(0).prints("");
        assert!(outcome.elapsed < Duration::from_secs(60), "{outcome}");
    }

    #[test]
    fn is_a_conversation() {
        let world = World::new();
        let mut running = world
            .run(["-i", &image::busybox(), "sh", "-c", "while read line; do echo got $line; done"])
            .stdin(Stdin::Open)
            .spawn();
        for word in ["a", "b"] {
            running.write(format!("{word}\n").as_bytes());
            running.wait_for_stdout(&format!("got {word}\n"));
        }
        running.close_stdin();
        running.wait().exits(0).prints("got a\ngot b\n");
    }
}
