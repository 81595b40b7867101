//! The cases of kmod's own test suite for its planner, as tables, with indexes that are built here.
//! The cases for loading by path, forced loading and old kernels are omitted: the loader accepts no
//! path, forces nothing, and needs finit_module(2).

use super::*;

/// Returns the bytes of an index with these keys and values, without shared prefixes.
fn index_bytes(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = 0xB007_F457_u32.to_be_bytes().to_vec();
    bytes.extend(0x0002_0001_u32.to_be_bytes());
    bytes.extend([0; 4]);
    let entries: Vec<(&[u8], &str)> = entries.iter().map(|(k, v)| (k.as_bytes(), *v)).collect();
    let root = add_node(&mut bytes, &entries);
    bytes[8..12].copy_from_slice(&root.to_be_bytes());
    bytes
}

/// Adds the node of all keys. The bytes that lead to the node are already cut off.
fn add_node(bytes: &mut Vec<u8>, entries: &[(&[u8], &str)]) -> u32 {
    let mut children = Vec::new();
    for first in 0..128u8 {
        let below: Vec<(&[u8], &str)> = entries
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(&[first])?, *value)))
            .collect();
        if !below.is_empty() {
            children.push((first, add_node(bytes, &below)));
        }
    }
    let values: Vec<&str> = entries
        .iter()
        .filter(|(key, _)| key.is_empty())
        .map(|(_, value)| *value)
        .collect();
    let mut reference = u32::try_from(bytes.len()).unwrap();
    if let (Some((first, _)), Some((last, _))) = (children.first(), children.last()) {
        reference |= 0x2000_0000;
        bytes.extend([*first, *last]);
        for byte in *first..=*last {
            let child = children.iter().find(|(b, _)| *b == byte);
            bytes.extend(child.map_or(0, |(_, node)| *node).to_be_bytes());
        }
    }
    if !values.is_empty() {
        reference |= 0x4000_0000;
        bytes.extend(u32::try_from(values.len()).unwrap().to_be_bytes());
        for value in values {
            bytes.extend(0u32.to_be_bytes());
            bytes.extend(value.as_bytes());
            bytes.push(0);
        }
    }
    reference
}

/// Returns a model of a kernel with these modules, each with its dependencies.
fn world(modules: &[(&str, &[&str])], builtin: &[&str], config: Config) -> TestTree {
    let file = |module: &str| format!("kernel/{module}.ko");
    let lines: Vec<(String, String)> = modules
        .iter()
        .map(|(module, needs)| {
            let needs: Vec<String> = needs.iter().map(|needed| file(needed)).collect();
            let line = format!("{}: {}", file(module), needs.join(" "));
            (module.replace('-', "_"), line)
        })
        .collect();
    let lines: Vec<(&str, &str)> = lines
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    let builtin: Vec<(&str, &str)> = builtin.iter().map(|name| (*name, "kernel/x.ko")).collect();
    let index = |entries| Some(Index::parse(index_bytes(entries)).unwrap());
    TestTree {
        indexes: Indexes {
            dependencies: index(&lines),
            builtin: index(&builtin),
            ..Indexes::default()
        },
        config,
        absent: Vec::new(),
        merge_softdeps: false,
    }
}

fn lines(text: &str) -> Config {
    let mut config = Config::default();
    config.add_file(Path::new("x.conf"), text.as_bytes());
    config
}

/// Returns the steps as `modprobe -D` prints them, with only the file name of each path.
fn planned(world: &TestTree, name: &str) -> Vec<String> {
    let steps = world
        .plans(name)
        .unwrap()
        .into_iter()
        .flat_map(|plan| plan.steps);
    let file = |path: &[u8]| path.strip_prefix(b"kernel/").unwrap().to_vec();
    let printed = steps.filter_map(|step| step.printed(file));
    printed
        .map(|line| String::from_utf8(line).unwrap())
        .collect()
}

const LOOP: &[(&str, &[&str])] = &[
    ("mod-simple", &[]),
    ("mod-loop-b", &[]),
    ("mod-loop-a", &["mod-loop-b"]),
];

#[test]
fn plans_match_the_cases_of_the_kmod_test_suite() {
    let both = ["insmod mod-loop-b.ko ", "insmod mod-loop-a.ko "];
    let cases: [(&str, &str, &str, &[&str]); 8] = [
        ("show_depends", "", "mod-loop-a", &both),
        (
            "show_depends2",
            "",
            "mod-simple",
            &["insmod mod-simple.ko "],
        ),
        (
            "alias_to_none",
            "alias mod-simple deaddood",
            "mod-simple",
            &[],
        ),
        ("builtin", "", "unix", &["builtin unix"]),
        (
            "softdep_loop",
            "softdep mod-loop-b post: mod-loop-a",
            "mod-loop-b",
            &[both[0], both[0], both[1]],
        ),
        (
            "weakdep_loop",
            "weakdep mod-loop-b mod-loop-a mod-simple",
            "mod-loop-b",
            &[both[0]],
        ),
        (
            "install_cmd_loop",
            "install mod-loop-b modprobe -i mod-loop-b && modprobe -q mod-loop-a",
            "mod-loop-b",
            &["install modprobe -i mod-loop-b && modprobe -q mod-loop-a "],
        ),
        (
            // kmod's own test expects both, and fails.
            "multi_softdep",
            "softdep mod-loop-a pre: mod-simple\nsoftdep mod-loop-a pre: nosuch",
            "mod-loop-a",
            &[both[0], "insmod mod-simple.ko ", both[1]],
        ),
    ];
    for (case, config, name, expected) in cases {
        let world = world(LOOP, &["unix"], lines(config));
        assert_eq!(planned(&world, name), expected, "{case}");
    }
}

#[test]
fn command_lines_match_the_cases_of_the_kmod_test_suite() {
    let cases: [(&str, &str, &str); 8] = [
        (
            "kcmdline",
            "initrd=\\initramfs.img mod_simple.foo mod_simple.bar=1 root=/dev/sda2 quiet rw",
            "foo bar=1 ",
        ),
        (
            "kcmdline2",
            "mod_simple.foo mod_simple.bar=1 quiet rw",
            "foo bar=1 ",
        ),
        (
            "kcmdline3",
            "BOOT_IMAGE=/boot/vmlinuz-3.12.12-57.g5f654cf mod_simple.foo mod_simple.bar=1",
            "foo bar=1 ",
        ),
        ("kcmdline4", "mod_simple.testparam=1.5G", "testparam=1.5G "),
        (
            "kcmdline5",
            "mod_simple.foo mod_simple.x=\"test 1\" mod_simple.\"invalid option\" \" no\" \
             \"no2 \" no3 quiet",
            "foo x=\"test 1\" ",
        ),
        (
            "kcmdline6",
            "mod_simple.foo=2 ivrs_acpihid[14:00.5]=AMD0020:00 mod_simple.bar=1",
            "foo=2 bar=1 ",
        ),
        (
            "kcmdline7",
            "mod_simple.dyndbg=\"file drivers/parport/ops.c +mpf\" quiet",
            "dyndbg=\"file drivers/parport/ops.c +mpf\" ",
        ),
        (
            "kcmdline8",
            "\"mod_simple.dyndbg=file drivers/parport/ops.c +mpf\" quiet",
            "dyndbg=\"file drivers/parport/ops.c +mpf\" ",
        ),
    ];
    for (case, line, parameters) in cases {
        let mut config = Config::default();
        config.add_command_line(line.as_bytes());
        let world = world(LOOP, &[], config);
        let expected = format!("insmod mod-simple.ko {parameters}");
        assert_eq!(planned(&world, "mod-simple"), [expected], "{case}");
    }
}

#[test]
fn blacklists_match_the_cases_of_the_kmod_test_suite() {
    let mut config = lines("blacklist floppy\nblacklist pcspkr\n");
    config.add_command_line(
        b"modprobe.blacklist=foo,bar modprobe.blacklist=foo2 quiet modprobe.blacklist=bar2 rw",
    );
    for name in ["floppy", "pcspkr", "foo", "bar", "foo2", "bar2"] {
        assert!(config.blacklisted(name.as_bytes()).is_some(), "{name}");
    }
    for name in ["pcspkr2", "ext4", "quiet"] {
        assert!(config.blacklisted(name.as_bytes()).is_none(), "{name}");
    }
}

#[test]
fn names_match_the_cases_of_the_kmod_test_suite() {
    for (given, expected) in [
        ("ext4", "ext4"),
        ("snd-hda-intel", "snd_hda_intel"),
        ("iTCO_wdt", "iTCO_wdt"),
    ] {
        assert_eq!(*module_name(given.as_bytes()), *expected.as_bytes());
    }
    for kept in [
        "test1234",
        "test[abcfoobar]2211",
        "bar[aaa][bbbb]sss",
        "kmod[p.b]lib",
        "[az]1234[AZ]",
    ] {
        assert_eq!(underscored(kept.as_bytes()).unwrap(), kept.as_bytes());
    }
    let world = world(&[("ext4", &[])], &[], lines("alias ext4.* ext4\n"));
    assert_eq!(world.plans("ext4.*").unwrap()[0].module, b"ext4");
}

#[test]
fn a_cycle_in_modules_dep_ends() {
    let modules: &[(&str, &[&str])] = &[("a", &["b", "a"]), ("b", &["a"])];
    let world = world(modules, &[], Config::default());
    let expected = ["insmod a.ko ", "insmod b.ko ", "insmod a.ko "];
    assert_eq!(planned(&world, "a"), expected);
}
