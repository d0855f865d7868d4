use super::*;

fn entry(op: &str, value: u64) -> BlockIoEntry {
    BlockIoEntry { major: 254, minor: 0, op: op.to_owned(), value }
}

#[test]
fn v1_block_io_lines() {
    let text = "254:0 Read 4096\n254:0 Write 0\n254:0 Total 4096\nTotal 4096\n";
    assert_eq!(v1::parse_block_io(text).unwrap(), [entry("Read", 4096), entry("Write", 0), entry("Total", 4096)]);
    assert_eq!(v1::parse_block_io("Total 0\n").unwrap(), []);
    assert_eq!(v1::parse_block_io("254 Read 1\n"), None);
    assert_eq!(v1::parse_block_io("254:0 Read x\n"), None);
}

#[test]
fn v2_block_io_lines() {
    let text = "254:0 rbytes=4096 wbytes=1 rios=2 wios=3 dbytes=0 dios=0 cost.usage=9\n8:0 \n";
    let stats = v2::parse_block_io(text).unwrap();
    assert_eq!(stats.service_bytes, [entry("read", 4096), entry("write", 1), entry("discard", 0)]);
    assert_eq!(stats.serviced, [entry("read", 2), entry("write", 3), entry("discard", 0)]);
    assert_eq!(v2::parse_block_io("254:0 rbytes=x\n"), None);
    assert_eq!(v2::parse_block_io("").unwrap(), BlockIoStats::default());
}

#[test]
fn flat_files_keep_what_is_a_number() {
    let map = flat("anon 4096\nfile 0\nodd\nworse x\n");
    assert_eq!(map.into_iter().collect::<Vec<_>>(), [("anon".to_owned(), 4096), ("file".to_owned(), 0)]);
}

#[test]
fn pressure_is_kept_as_exactly_as_the_kernel_writes_it() {
    let text = "some avg10=1.05 avg60=0.00 avg300=99.99 total=123\nfull avg10=0.10 avg60=0.02 avg300=0.00 total=7\n";
    let pressure = pressure::parse(text).unwrap();
    assert_eq!(pressure.some, Stall { avg10: 105, avg60: 0, avg300: 9999, total_us: 123 });
    assert_eq!(pressure.full, Some(Stall { avg10: 10, avg60: 2, avg300: 0, total_us: 7 }));
    assert_eq!(pressure::parse("some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n").unwrap().full, None);
    assert_eq!(pressure::parse(""), None);
}

#[test]
fn rdma_lines_name_device_handles_and_objects() {
    let text = "mlx4_0 hca_handle=2 hca_object=max\nocrdma1 hca_handle=3 hca_object=4\n";
    let expected = [("mlx4_0".to_owned(), Some(2), None), ("ocrdma1".to_owned(), Some(3), Some(4))];
    assert_eq!(rdma_lines(text), expected);
}
