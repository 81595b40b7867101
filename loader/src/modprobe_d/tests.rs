//! Tests of the lines of `modprobe.d(5)`: which are accepted, which are skipped, and the messages
//! about them. The tests of `plan` cover the effects of the lines.

use super::*;

fn read(text: &str) -> Config {
    let mut config = Config::default();
    config.add_file(Path::new("/etc/modprobe.d/x.conf"), text.as_bytes());
    config
}

fn lines(text: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut lines = LogicalLines::of(text);
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        found.push((lines.number(), line));
    }
    found
}

#[test]
fn lines_are_joined_and_counted() {
    let text = b"a\\\nb\n\nc\\";
    let expected: [(usize, Vec<u8>); 3] =
        [(2, b"ab".to_vec()), (3, Vec::new()), (4, b"c".to_vec())];
    assert_eq!(lines(text), expected);
    assert!(lines(b"").is_empty());
    assert!(lines(b"\\").is_empty());
    assert!(lines(b"\\\n").is_empty());
}

#[test]
fn an_ignored_line_is_kept_as_a_problem_with_its_file_and_line() {
    for line in [
        "alias x",
        "alias",
        "alias a[b c",
        "blacklist",
        "blacklist a]",
        "options x",
        "options x ",
        "install x",
        "remove x",
        "softdep x",
        "weakdep x",
        "include /etc/x",
        "config binary_indexes yes",
        "Blacklist x",
        "\u{feff}blacklist x",
    ] {
        let config = read(&format!("\n{line}\nblacklist y\n"));
        assert_eq!(config.problems.len(), 1, "{line}");
        let problem = &config.problems[0];
        assert_eq!(problem.source.to_string(), "/etc/modprobe.d/x.conf:2");
        assert_eq!(config.blacklist.len(), 1, "{line}");
    }
}

#[test]
fn blank_lines_and_comments_are_not_problems() {
    assert!(read("\n  \n\t\n#\n# x\n").problems.is_empty());
}

#[test]
fn soft_dependencies_are_split_as_kmod_splits_them() {
    let told = |text: &str| {
        let softdep = softdep(text.as_bytes());
        let join = |words: &[Vec<u8>]| {
            let words = words.iter().map(|word| String::from_utf8_lossy(word));
            words.collect::<Vec<_>>().join(",")
        };
        format!("{}|{}", join(&softdep.pre), join(&softdep.post))
    };
    for (text, expected) in [
        ("pre: a b post: c", "a,b|c"),
        ("pre:  a   b \t post:\tc  ", "a,b|c"),
        (" pre: a", "|"),
        ("x pre: a", "a|"),
        ("post: a pre: b", "b|a"),
        ("pre:a", "|"),
        ("pre: post: a", "|a"),
        ("pre: a\rb\x0bc", "a,b,c|"),
        ("pre:", "|"),
        (" ", "|"),
    ] {
        assert_eq!(told(text), expected, "{text:?}");
    }
}

#[test]
fn the_shipped_lines_of_the_opt_in_file_do_not_blacklist_modules_for_the_loader() {
    let mut config = read("blacklist mlx5_ib\n");
    let opt_in = Path::new("/etc/modprobe.d").join(OPT_IN_FILE);
    // Case S8: a line that an administrator has added to it, and a line as shipped.
    config.add_file(&opt_in, b"blacklist irdma\nblacklist ib_umad\n");
    assert!(config.blacklisted(b"irdma").is_some());
    config.admit_opted_in();
    assert!(config.blacklisted(b"irdma").is_none());
    assert!(config.blacklisted(b"ib_umad").is_some());
    let line = config.blacklisted(b"mlx5_ib").unwrap();
    assert_eq!(line.to_string(), "/etc/modprobe.d/x.conf:1");
}

#[test]
fn plain_and_wildcard_lines_are_found_in_their_order() {
    let config =
        read("alias a* one\nalias ab two\nalias ?b three\nalias ab four\nalias \\\\ab five\n");
    let found = |name: &str| -> Vec<String> {
        let lines = config.aliases.matching(name.as_bytes());
        lines
            .map(|line| String::from_utf8_lossy(&line.module).into_owned())
            .collect()
    };
    assert_eq!(found("ab"), ["one", "two", "three", "four", "five"]);
    assert_eq!(found("ax"), ["one"]);
    assert!(found("x").is_empty());
}
