//! Measures what the store costs, in CPU seconds a GiB and in files a second.
//!
//! `cargo run --release -p wormhole-store --example bulk [MiB] [files]`. CPU time is that of
//! the whole process, so numbers hold on a busy machine too. Not a bench: no statistics.

#![allow(clippy::print_stdout)] // printing is what it is for

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rustix::time::{ClockId, clock_gettime};
use wormhole_store::{ContentKey, FilePath, RootId, Store, StoreOptions};

const ROOT: RootId = RootId::from_bytes([1; 16]);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mib: usize = arguments.next().map_or(Ok(1024), |text| text.parse())?;
    let files: usize = arguments.next().map_or(Ok(20_000), |text| text.parse())?;
    let home = tempfile::tempdir_in(std::env::current_dir()?)?;
    let folder = home.path().join("folder");
    fs::create_dir(&folder)?;
    large_file(home.path(), &folder, mib)?;
    small_files(home.path(), &folder, files)
}

fn open(home: &Path, name: &str, folder: &Path) -> Result<Store, Box<dyn Error>> {
    let key = ContentKey::from_bytes([7; 32]);
    let store = Store::open(&home.join(name), key, StoreOptions::default())?;
    store.add_root(&ROOT, folder)?;
    Ok(store)
}

fn large_file(home: &Path, folder: &Path, mib: usize) -> Result<(), Box<dyn Error>> {
    let path = folder.join("large");
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let mut block = vec![0; 1 << 20];
    let mut file = File::create(&path)?;
    for _ in 0..mib {
        rng.fill_bytes(&mut block);
        file.write_all(&block)?;
    }
    let bytes = (mib << 20) as u64;
    let referring = open(home, "referring", folder)?;
    let large = FilePath::new(ROOT, "large");
    let content = measure("import by reference", bytes, || {
        let imported = referring.import_reference(&large)?;
        referring.commit()?;
        Ok(imported.content)
    })?;
    let copying = open(home, "copying", folder)?;
    measure("import by copy, durable", bytes, || {
        copying.import_copy(&mut File::open(&path)?)?;
        Ok(copying.commit()?)
    })?;
    for (name, store) in [("out of the file", &referring), ("out of packs", &copying)] {
        measure(&format!("read chunks {name}"), bytes, || {
            for slot in store.slots(&content)? {
                store.read_encoded(&slot?.chunk.id)?;
            }
            Ok(())
        })?;
        measure(&format!("read_at {name}"), bytes, || {
            let reader = store.reader(content)?;
            let mut at = 0;
            while at < bytes {
                at += reader.read_at(at, &mut block)? as u64;
            }
            Ok(())
        })?;
    }
    measure("holding", bytes, || Ok(referring.holding(&content)?))?;
    Ok(())
}

fn small_files(home: &Path, folder: &Path, count: usize) -> Result<(), Box<dyn Error>> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(2);
    let mut names = Vec::with_capacity(count);
    let mut bytes = 0;
    for number in 0..count {
        let path = format!("small/{}/{number}", number % 400);
        let full = folder.join(&path);
        fs::create_dir_all(folder.join(format!("small/{}", number % 400)))?;
        let mut content = vec![0; 4096 + (number * 37) % 12_288];
        rng.fill_bytes(&mut content);
        fs::write(full, &content)?;
        bytes += content.len() as u64;
        names.push(FilePath::new(ROOT, path));
    }
    let store = open(home, "small", folder)?;
    for pass in ["first", "again"] {
        let start = Instant::now();
        let contents = measure(&format!("{count} small files, {pass}"), bytes, || {
            let imported: Result<Vec<_>, _> = store.import_many(&names).into_iter().collect();
            store.commit()?;
            Ok(imported?)
        })?;
        println!(
            "    {:.0} files/s",
            count as f64 / start.elapsed().as_secs_f64()
        );
        let start = Instant::now();
        for imported in &contents {
            store.read_encoded(&imported.content.id.first_blob())?;
        }
        println!(
            "    {:.0} reads/s",
            count as f64 / start.elapsed().as_secs_f64()
        );
    }
    let start = Instant::now();
    store.moved(&ROOT, Path::new("small"), Path::new("renamed"))?;
    store.commit()?;
    println!(
        "renaming the directory of all of them, durable: {:?}",
        start.elapsed()
    );
    Ok(())
}

fn measure<T>(
    what: &str,
    bytes: u64,
    work: impl FnOnce() -> Result<T, Box<dyn Error>>,
) -> Result<T, Box<dyn Error>> {
    let (wall, cpu) = (Instant::now(), cpu_time());
    let outcome = work()?;
    let (wall, cpu) = (
        wall.elapsed().as_secs_f64(),
        (cpu_time() - cpu).as_secs_f64(),
    );
    let gib = bytes as f64 / f64::from(1 << 30);
    println!(
        "{what:40} {:7.2} CPU s/GiB {:8.0} MB/s",
        cpu / gib,
        bytes as f64 / 1e6 / wall
    );
    Ok(outcome)
}

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.try_into().expect("CPU time is not negative")
}
