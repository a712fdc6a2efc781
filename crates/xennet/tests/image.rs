//! `xennet image` on real files: what is taken, and the corpus of hostile ones, made with the real qemu-img and tar where they can
//! make it. Each is refused with its reason, and nothing of it stays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const MIB: usize = 1 << 20;

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(place.path("data")).unwrap();
        // Small, so that a bomb goes off early.
        fs::write(place.path("data/xennet.toml"), "[limits]\nimage_mib = 64\n").unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn xennet(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xennet"));
        command.arg("--datadir").arg(self.path("data")).args(arguments).current_dir(self.dir.path());
        command.output().unwrap()
    }

    fn tool(&self, program: &str, arguments: &[&str]) {
        let output = Command::new(program).args(arguments).current_dir(self.dir.path()).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}; apt-get install qemu-utils tar gzip"));
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn added(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.xennet(&[&["--json", "image", "add"], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Refused, for this reason, and nothing is left.
    fn refused(&self, arguments: &[&str], reason: &str) {
        let output = self.xennet(&[&["image", "add"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?} was taken");
        assert!(said.contains("is refused: ") && said.contains(reason), "{arguments:?}: expected {reason:?} in {said}");
        let left = fs::read_dir(self.path("data/images")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{arguments:?} left something");
    }

    fn file(&self, image: &serde_json::Value, name: &str) -> PathBuf {
        self.path("data/images").join(image["hash"].as_str().unwrap()).join(name)
    }

    /// A disk with a boot sector and some content.
    fn disk(&self, name: &str) -> Vec<u8> {
        let mut bytes = vec![0; 3 * MIB + 512];
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        for (at, byte) in bytes[MIB..2 * MIB].iter_mut().enumerate() {
            *byte = (at.wrapping_mul(2_654_435_761) >> 13) as u8;
        }
        fs::write(self.path(name), &bytes).unwrap();
        bytes
    }
}

/// An archive whose entries may be as wrong as they like.
fn archive(path: &Path, entries: &[(&str, tar::EntryType, &str, &[u8])]) {
    let mut bytes = Vec::new();
    for (name, kind, link, content) in entries {
        let mut header = tar::Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.extend_from_slice(&[0; 1024]);
    fs::write(path, bytes).unwrap();
}

const FILE: tar::EntryType = tar::EntryType::Regular;
const FOLDER: tar::EntryType = tar::EntryType::Directory;

/// A docker archive of these layers.
fn docker(place: &Place, name: &str, layers: &[&str]) {
    let manifest = serde_json::json!([{ "Config": "config.json", "Layers": layers }]).to_string();
    let contents: Vec<Vec<u8>> = layers.iter().map(|layer| fs::read(place.path(layer)).unwrap()).collect();
    let mut entries: Vec<(&str, tar::EntryType, &str, &[u8])> = vec![("manifest.json", FILE, "", manifest.as_bytes())];
    entries.extend(layers.iter().zip(&contents).map(|(layer, content)| (*layer, FILE, "", &content[..])));
    archive(&place.path(name), &entries);
}

/// What the prepared archive holds: path and content.
fn listing(path: &Path) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(fs::File::open(path).unwrap());
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = String::new();
        std::io::Read::read_to_string(&mut entry, &mut content).unwrap();
        (entry.path().unwrap().display().to_string(), content)
    });
    let mut all: Vec<_> = entries.collect();
    all.sort();
    all
}

#[test]
fn disks_are_taken_byte_for_byte_listed_verified_and_pruned() {
    let place = Place::new();
    let bytes = place.disk("disk.raw");
    let raw = place.added(&["disk.raw"]);
    assert_eq!((&raw["kind"], &raw["unpacked_bytes"]), (&"raw".into(), &(bytes.len() as u64).into()));
    assert_eq!(fs::read(place.file(&raw, "source")).unwrap(), bytes);
    // Every way that qemu-img writes one, and the raw disk that comes of it is the same.
    for (name, options) in [
        ("plain", vec![]),
        ("zlib", vec!["-c"]),
        ("zstd", vec!["-c", "-o", "compression_type=zstd"]),
        ("old", vec!["-o", "compat=0.10"]),
        ("small", vec!["-o", "cluster_size=512"]),
        ("large", vec!["-o", "cluster_size=2M"]),
    ] {
        let file = format!("{name}.qcow2");
        place.tool("qemu-img", &[&["convert", "-f", "raw", "-O", "qcow2"], &options[..], &["disk.raw", &file]].concat());
        let image = place.added(&[&file]);
        assert_eq!(image["kind"], "qcow2");
        assert!(fs::read(place.file(&image, "disk.raw")).unwrap() == bytes, "{name}");
    }
    // The same file again is the same image.
    assert_eq!(place.added(&["plain.qcow2"])["hash"], place.added(&["plain.qcow2"])["hash"]);
    let list: Vec<serde_json::Value> = serde_json::from_slice(&place.xennet(&["--json", "image", "list"]).stdout).unwrap();
    assert_eq!(list.len(), 7);
    assert!(place.xennet(&["image", "verify"]).status.success());
    let hash = raw["hash"].as_str().unwrap();
    let mut damaged = fs::OpenOptions::new().write(true).open(place.file(&raw, "source")).unwrap();
    damaged.write_all(b"x").unwrap();
    let output = place.xennet(&["image", "verify", &hash[..8]]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("is damaged: source has another hash"), "{output:?}");

    let dry = place.xennet(&["image", "prune", "--keep-mib", "0", "--dry-run"]);
    assert!(String::from_utf8_lossy(&dry.stdout).starts_with("7 images would be deleted, "), "{dry:?}");
    assert!(place.xennet(&["image", "prune", &hash[..8]]).status.success());
    let pruned: serde_json::Value = serde_json::from_slice(&place.xennet(&["--json", "image", "prune", "--keep-mib", "0"]).stdout).unwrap();
    assert_eq!(pruned["images"].as_array().unwrap().len(), 6);
    assert_eq!(fs::read_dir(place.path("data/images")).unwrap().count(), 0);
}

#[test]
fn archives_and_container_images_become_one_plain_archive() {
    let place = Place::new();
    fs::create_dir_all(place.path("root/etc")).unwrap();
    fs::write(place.path("root/etc/name"), "kept").unwrap();
    std::os::unix::fs::symlink("/etc/name", place.path("root/link")).unwrap();
    fs::hard_link(place.path("root/etc/name"), place.path("root/twin")).unwrap();
    for (file, flags) in [("a.tar", "-cf"), ("a.tar.gz", "-czf"), ("a.tar.xz", "-cJf"), ("a.tar.zst", "--zstd -cf")] {
        let flags: Vec<&str> = flags.split(' ').collect();
        place.tool("tar", &[&flags[..], &[file, "-C", "root", "."]].concat());
        let image = place.added(&[file]);
        assert_eq!(image["kind"], "root-tar", "{file}");
        let names: Vec<String> = listing(&place.file(&image, "root.tar")).into_iter().map(|(path, _)| path).collect();
        assert_eq!(names, ["etc", "etc/name", "link", "twin"], "{file}");
    }
    // A later layer replaces a file, takes one away, and empties a folder.
    let lower: &[(&str, tar::EntryType, &str, &[u8])] =
        &[("a", FILE, "", b"old"), ("b", FILE, "", b"gone"), ("d/", FOLDER, "", b""), ("d/x", FILE, "", b"gone"), ("k", FILE, "", b"kept")];
    archive(&place.path("lower.tar"), lower);
    archive(
        &place.path("upper.tar"),
        &[("a", FILE, "", b"new"), (".wh.b", FILE, "", b""), ("d/.wh..wh..opq", FILE, "", b""), ("d/y", FILE, "", b"new")],
    );
    docker(&place, "image.tar", &["lower.tar", "upper.tar"]);
    let image = place.added(&["image.tar"]);
    assert_eq!(image["kind"], "container");
    let expected = [("a", "new"), ("d", ""), ("d/y", "new"), ("k", "kept")].map(|(path, content)| (path.to_owned(), content.to_owned()));
    assert_eq!(listing(&place.file(&image, "root.tar")), expected);

    // The same as an OCI layout, in a folder.
    let oci = place.path("oci/blobs/sha256");
    fs::create_dir_all(&oci).unwrap();
    let blob = |bytes: &[u8]| {
        fs::write(place.path("blob"), bytes).unwrap();
        let output = Command::new("sha256sum").arg(place.path("blob")).output().unwrap();
        let hash = String::from_utf8_lossy(&output.stdout)[..64].to_owned();
        fs::write(oci.join(&hash), bytes).unwrap();
        serde_json::json!({ "digest": format!("sha256:{hash}"), "size": bytes.len() })
    };
    let layers: Vec<_> = ["lower.tar", "upper.tar"].iter().map(|layer| blob(&fs::read(place.path(layer)).unwrap())).collect();
    let manifest = blob(serde_json::json!({ "schemaVersion": 2, "layers": layers }).to_string().as_bytes());
    fs::write(place.path("oci/index.json"), serde_json::json!({ "manifests": [manifest] }).to_string()).unwrap();
    fs::write(place.path("oci/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let image = place.added(&["oci"]);
    assert_eq!(listing(&place.file(&image, "root.tar")), expected);
    // A blob that is not what its name says.
    place.xennet(&["image", "prune", "--keep-mib", "0"]);
    let name = manifest["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    fs::write(oci.join(&name), fs::read_to_string(oci.join(&name)).unwrap() + " ").unwrap();
    place.refused(&["oci"], "has another hash than its name");
}

#[test]
fn hostile_disks_are_refused_each_with_its_reason() {
    let place = Place::new();
    place.disk("disk.raw");
    fs::write(place.path("secret"), vec![b's'; MIB]).unwrap();
    let create = |arguments: &[&str]| place.tool("qemu-img", &[&["create", "-q", "-f", "qcow2"], arguments].concat());
    let backing = place.path("secret").display().to_string();
    create(&["-b", &backing, "-F", "raw", "backing.qcow2"]);
    place.refused(&["backing.qcow2"], &format!("it has a backing file ({backing})"));
    create(&["-u", "-b", r#"json:{"driver":"nbd","host":"127.0.0.1","port":"10809"}"#, "-F", "raw", "json.qcow2", "1M"]);
    place.refused(&["json.qcow2"], "it has a backing file (json:{\"driver\":\"nbd\"");
    create(&["-o", "data_file=secret.data,data_file_raw=on", "external.qcow2", "1M"]);
    place.refused(&["external.qcow2"], "external data file");
    create(&["-o", "cluster_size=2M", "pib.qcow2", "1P"]);
    place.refused(&["pib.qcow2"], "the disk inside is 1125899906842624 bytes, but at most 67108864 bytes are taken");
    create(&["--object", "secret,id=s,data=x", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", "luks.qcow2", "1M"]);
    place.refused(&["luks.qcow2"], "it is encrypted (LUKS inside qcow2)");
    place.tool(
        "qemu-img",
        &["create", "-q", "-f", "luks", "--object", "secret,id=s,data=x", "-o", "key-secret=s,iter-time=10", "luks.raw", "1M"],
    );
    place.refused(&["luks.raw"], "it is encrypted (LUKS)");
    create(&["-o", "extended_l2=on", "extended.qcow2", "1M"]);
    place.refused(&["extended.qcow2"], "incompatible_features is 16");
    place.tool("qemu-img", &["convert", "-O", "vmdk", "disk.raw", "disk.vmdk"]);
    place.refused(&["disk.vmdk"], "it is a VMDK disk: make it raw first");

    // A disk that a program which guesses would take for something else: as a whole, and inside of a qcow2.
    create(&["-b", &backing, "-F", "raw", "inner"]);
    place.refused(&["--kind", "raw", "inner"], "it was said to be raw, but begins like qcow2");
    place.tool("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "inner", "outer.qcow2"]);
    place.refused(&["outer.qcow2"], "the disk inside begins like qcow2");
    fs::write(place.path("json.raw"), "json:{\"driver\":\"file\",\"filename\":\"/etc/shadow\"}").unwrap();
    place.refused(&["json.raw"], "a description of a disk elsewhere (json:)");

    // Cut off anywhere, it is refused or it is whole; the process that reads it never dies of it.
    place.tool("qemu-img", &["convert", "-c", "-f", "raw", "-O", "qcow2", "disk.raw", "whole.qcow2"]);
    let whole = fs::read(place.path("whole.qcow2")).unwrap();
    for length in [5, 71, 100, 65_540, 3 * 65_536, whole.len() / 2] {
        fs::write(place.path("cut.qcow2"), &whole[..length]).unwrap();
        place.refused(&["cut.qcow2"], if length < 72 { "it is cut off" } else { "" });
    }
    // Tables that point anywhere.
    let at = u64::from_be_bytes(whole[40..48].try_into().unwrap()) as usize;
    let mut wild = whole;
    wild[at..at + 8].copy_from_slice(&0x00ff_ffff_ffff_0000_u64.to_be_bytes());
    fs::write(place.path("wild.qcow2"), wild).unwrap();
    place.refused(&["wild.qcow2"], "it ends at byte");
    fs::write(place.path("words"), "nothing that is known").unwrap();
    place.refused(&["words"], "it is no image that is known here");
}

/// Path, kind, what it links to, content.
type Entry<'a> = (&'a str, tar::EntryType, &'a str, &'a [u8]);

#[test]
fn hostile_archives_are_refused_each_with_its_reason() {
    let place = Place::new();
    let (link, hard, device) = (tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Block);
    let cases: &[(&[Entry], &str)] = &[
        (&[("/etc/passwd", FILE, "", b"x")], "/etc/passwd is absolute"),
        (&[("a/../../x", FILE, "", b"x")], "a/../../x is one with `..`"),
        (&[("dev/sda", device, "", b"")], "dev/sda is a device"),
        (&[("h", hard, "../../etc/shadow", b"")], "h is a hard link to something outside of it"),
        (&[("h", hard, "/etc/shadow", b"")], "h is a hard link to something outside of it"),
        (&[("h", hard, "nothing", b"")], "h is a hard link to something that is no file of the image"),
        (&[("l", link, "/etc", b""), ("l/passwd", FILE, "", b"x")], "l/passwd is below a symbolic link"),
        (&[("l", link, "/etc/shadow", b""), ("h", hard, "l", b"")], "h is a hard link to something that is no file of the image"),
        (&[("a/l", link, "../../../etc", b"")], "a/l is a symbolic link that climbs above the root"),
        (&[("p", tar::EntryType::Fifo, "", b"")], "p is a named pipe"),
    ];
    for (entries, reason) in cases {
        archive(&place.path("bad.tar"), entries);
        place.refused(&["bad.tar"], reason);
        // The same in a layer of a container image.
        docker(&place, "image.tar", &["bad.tar"]);
        place.refused(&["image.tar"], reason);
    }
    // A few kilobytes that unpack to 200 MB of one file, and a header that claims a petabyte.
    let zeros = vec![0; 200 * MIB];
    archive(&place.path("bomb.tar"), &[("zeros", FILE, "", &zeros)]);
    place.tool("gzip", &["-k", "bomb.tar"]);
    place.tool("zstd", &["-q", "bomb.tar"]);
    for bomb in ["bomb.tar.gz", "bomb.tar.zst"] {
        place.refused(&[bomb], "what is in the archive is 209715200 bytes, but at most 67108864 bytes are taken");
    }
    let mut claims = fs::read(place.path("bad.tar")).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_path("claims").unwrap();
    header.set_size(1 << 50);
    header.set_mode(0o644);
    header.set_cksum();
    claims[..512].copy_from_slice(header.as_bytes());
    fs::write(place.path("claims.tar"), claims).unwrap();
    place.refused(&["--kind", "root-tar", "claims.tar"], "is 1125899906842624 bytes, but at most");
    // Very many small ones: the bytes between them are bounded as well.
    place.tool("sh", &["-c", "head -c 400M /dev/zero | gzip -1 > zeros.gz"]);
    place.refused(&["zeros.gz"], "the archive cannot be unpacked");
    // Cut off, and not what it is said to be.
    let whole = fs::read(place.path("bomb.tar.gz")).unwrap();
    fs::write(place.path("cut.tar.gz"), &whole[..whole.len().min(300)]).unwrap();
    place.refused(&["cut.tar.gz"], "is 209715200 bytes, but at most");
    archive(&place.path("good.tar"), &[("a", FILE, "", &[7; 5000])]);
    let good = fs::read(place.path("good.tar")).unwrap();
    fs::write(place.path("cut.tar"), &good[..2000]).unwrap();
    place.refused(&["cut.tar"], "the archive cannot be unpacked: it is damaged or cut off");
    place.refused(&["--kind", "container", "good.tar"], "it holds neither oci-layout nor manifest.json");
}
