//! Layers that were damaged behind the engine's back, found when they are used.

use std::fs;
use std::path::{Path, PathBuf};

use berth_testkit::archive::digest;
use berth_testkit::disk::SmallDisk;
use berth_testkit::{Instance, wait_until};

use super::three_layers;

const SEEN: [&str; 3] = ["cat", "/shared", "/d/three"];

/// What it is, and how it is done to the home of a layer.
type Damage = (&'static str, fn(&Path));

/// Homes of the image's layers, bottom to top.
fn homes(berth: &Instance, snapshotter: &str) -> Vec<PathBuf> {
    let layers = berth.root().join("snapshots").join(snapshotter).join("layers");
    let listed = berth.berth(&["image", "layers", "--json", "three"]).ok().to_owned();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let mut chain: Vec<String> = Vec::new();
    for layer in listed.as_array().unwrap() {
        let diff_id = layer["diff_id"].as_str().unwrap();
        let below = chain.last();
        chain.push(below.map_or_else(|| diff_id.to_owned(), |below| digest(format!("{below} {diff_id}").as_bytes())));
    }
    chain.iter().map(|chain_id| layers.join(chain_id.trim_start_matches("sha256:"))).collect()
}

/// Each kind of damage to each layer: a new container and one that was made before see the image as it is, and fsck finds it in order again.
fn damage_on(snapshotter: &str, damages: &[Damage], layers: &[usize]) {
    damage_in(Instance::start_with(&["--snapshotter", snapshotter]), snapshotter, damages, layers);
}

fn damage_in(mut berth: Instance, snapshotter: &str, damages: &[Damage], layers: &[usize]) {
    berth.load(&three_layers().docker_archive()).ok();
    let expected = "third3";
    for (what, damage) in damages {
        for at in layers.iter().copied() {
            let name = format!("{}-{at}", what.replace(' ', "-"));
            berth.berth(&[&["create", "--name", &name, "three"], &SEEN[..]].concat()).ok();
            damage(&homes(&berth, snapshotter)[at]);
            assert_eq!(berth.berth(&["start", "-a", &name]).ok(), expected, "{snapshotter}: {what}, layer {at}");
            damage(&homes(&berth, snapshotter)[at]);
            let run = berth.berth(&[&["run", "--rm", "three"], &SEEN[..]].concat());
            assert_eq!(run.ok(), expected, "{snapshotter}: {what}, layer {at}");
            // The daemon that comes back does not trust what it finds either.
            damage(&homes(&berth, snapshotter)[at]);
            berth.kill_daemon();
            berth.spawn();
            assert_eq!(berth.berth(&["start", "-a", &name]).ok(), expected, "{snapshotter}: {what}, layer {at}");
            berth.berth(&["rm", &name]).ok();
        }
    }
    let checked = berth.berth(&["fsck"]);
    assert!(checked.ok().ends_with("all in order"), "{snapshotter}: {checked:?}");

    // A blob that is damaged as well cannot help: told by name, with the way out, which works.
    let home = homes(&berth, snapshotter).remove(2);
    let listed = berth.berth(&["image", "layers", "--json", "three"]).ok().to_owned();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let blob = listed[2]["blob"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    fs::write(berth.root().join("content/blobs/sha256").join(blob), "nothing of it").unwrap();
    gone(&home);
    let refused = berth.berth(&["run", "--rm", "three", "true"]);
    assert_eq!(refused.code, 125, "{refused:?}");
    assert!(
        refused.stderr.contains("of three:latest is damaged (it is gone) and its blob cannot replace it"),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("hint: berth pull three:latest"), "{refused:?}");
    berth.load(&three_layers().docker_archive()).ok();
    assert_eq!(berth.berth(&[&["run", "--rm", "three"], &SEEN[..]].concat()).ok(), expected);
    assert!(berth.berth(&["fsck"]).ok().ends_with("all in order"));
}

/// S-087: directories.
#[test]
fn s087_a_damaged_layer_is_found_on_use_overlay() {
    damage_on("overlay", &directory_damages(), &[0, 2]);
}

#[test]
fn s087_a_damaged_layer_is_found_on_use_native() {
    // Layers below the topmost matter only to make that one again.
    damage_on("native", &directory_damages(), &[2]);
    let berth = Instance::start_with(&["--snapshotter", "native"]);
    berth.load(&three_layers().docker_archive()).ok();
    homes(&berth, "native").iter().for_each(|home| gone(home));
    assert_eq!(berth.berth(&[&["run", "--rm", "three"], &SEEN[..]].concat()).ok(), "third3");
}

/// S-087: subvolumes, on a file system in a file.
#[test]
fn s087_a_damaged_layer_is_found_on_use_btrfs() {
    let disk = SmallDisk::btrfs(256);
    let damages = directory_damages().into_iter().filter(|(what, _)| *what != "emptied");
    damage_in(disk.instance(&["--snapshotter", "btrfs"]), "btrfs", &damages.collect::<Vec<_>>(), &[2]);
    let berth = disk.instance(&["--snapshotter", "btrfs"]);
    berth.load(&three_layers().docker_archive()).ok();
    homes(&berth, "btrfs").iter().for_each(|home| gone(home));
    assert_eq!(berth.berth(&[&["run", "--rm", "three"], &SEEN[..]].concat()).ok(), "third3");
    drop(berth);
}

/// S-087: a layer is made anew in another place than that which containers run on: these see everything of it as before, those that start see the new
/// one, also when it is the next daemon that finds the damage; and the old one goes with the last that runs on it.
#[test]
fn s087_containers_keep_the_layer_they_run_on() {
    let mut berth = Instance::start_with(&["--snapshotter", "overlay"]);
    berth.load(&three_layers().docker_archive()).ok();
    let store = berth.root().join("snapshots/overlay");
    let count = |name: &str| fs::read_dir(store.join(name)).unwrap().count();
    let spoil = |berth: &Instance| {
        homes(berth, "overlay").iter().for_each(|home| fs::write(home.join("layer.json"), "{\"size").unwrap());
    };
    let sees = |berth: &Instance, name: &str| berth.berth(&[&["exec", name], &SEEN[..]].concat()).ok().to_owned();
    let directory = |berth: &Instance| {
        fs::metadata(homes(berth, "overlay")[0].join("fs")).map(|found| std::os::unix::fs::MetadataExt::ino(&found))
    };
    berth.berth(&["run", "-d", "--name", "old", "three", "sleep", "1000"]).ok();
    let before = directory(&berth).unwrap();
    spoil(&berth);
    berth.berth(&["run", "-d", "--name", "new", "three", "sleep", "1000"]).ok();
    assert_ne!(directory(&berth).unwrap(), before, "it was made anew");
    wait_until("the trash is empty", || (count("trash") == 0).then_some(()));
    assert_eq!(
        (count("replaced"), sees(&berth, "old").as_str()),
        (3, "third3"),
        "what nobody had looked at before is there"
    );
    assert!(berth.berth(&["fsck"]).ok().ends_with("all in order"));
    berth.berth(&["rm", "-f", "old"]).ok();
    wait_until("the old copies are let go", || (count("replaced") == 0).then_some(()));
    assert_eq!(sees(&berth, "new"), "third3");

    spoil(&berth);
    berth.kill_daemon();
    berth.spawn();
    wait_until("the trash is empty", || (count("trash") == 0).then_some(()));
    assert_eq!((count("replaced"), sees(&berth, "new").as_str()), (3, "third3"));
    assert_eq!(berth.berth(&[&["run", "--rm", "three"], &SEEN[..]].concat()).ok(), "third3");
    berth.kill_daemon();
    berth.spawn();
    wait_until("the trash is empty", || (count("trash") == 0).then_some(()));
    assert_eq!((count("replaced"), sees(&berth, "new").as_str()), (3, "third3"));
    berth.berth(&["rm", "-f", "new"]).ok();
    wait_until("the old copies are let go", || (count("replaced") == 0).then_some(()));
}

/// S-087: images.
#[test]
fn s087_a_damaged_layer_is_found_on_use_erofs() {
    damage_on(
        "erofs",
        &[
            ("gone", gone),
            ("image gone", |home| fs::remove_file(home.join("layer.erofs")).unwrap()),
            ("image cut short", |home| {
                let image = home.join("layer.erofs");
                let length = fs::metadata(&image).unwrap().len();
                fs::File::options().write(true).open(&image).unwrap().set_len(length / 2 / 4096 * 4096).unwrap();
            }),
            ("record cut short", |home| fs::write(home.join("layer.json"), "{\"size").unwrap()),
        ],
        &[0, 2],
    );
}

/// S-087: a superblock that says something else refuses to be mounted: found by the next daemon, which mounts anew.
#[test]
fn s087_a_damaged_superblock_is_found_on_use() {
    use std::os::unix::fs::FileExt as _;
    let mut berth = Instance::start_with(&["--snapshotter", "erofs"]);
    berth.load(&three_layers().docker_archive()).ok();
    for at in [0, 2] {
        let image = homes(&berth, "erofs")[at].join("layer.erofs");
        berth.kill_daemon();
        // The magic number, 1024 bytes from the start.
        fs::File::options().write(true).open(&image).unwrap().write_all_at(&[0; 64], 1024).unwrap();
        berth.spawn();
        assert_eq!(berth.berth(&[&["run", "--rm", "three"], &SEEN[..]].concat()).ok(), "third3", "layer {at}");
    }
    assert!(berth.berth(&["fsck"]).ok().ends_with("all in order"));
}

/// At once: the background work may be writing its mark into it.
fn gone(home: &Path) {
    let away = home.with_extension("away");
    fs::rename(home, &away).unwrap();
    fs::remove_dir_all(away).unwrap();
}

fn directory_damages() -> Vec<Damage> {
    vec![
        ("gone", gone),
        ("files gone", |home| fs::remove_dir_all(home.join("fs")).unwrap()),
        ("emptied", |home| {
            fs::remove_dir_all(home.join("fs")).unwrap();
            fs::create_dir(home.join("fs")).unwrap();
        }),
        ("a name gone", |home| {
            let victim = fs::read_dir(home.join("fs")).unwrap().next().unwrap().unwrap().path();
            fs::remove_dir_all(&victim).or_else(|_| fs::remove_file(&victim)).unwrap();
        }),
        ("record gone", |home| fs::remove_file(home.join("layer.json")).unwrap()),
    ]
}
