/* A mount of an NFS export without a kernel that can mount NFS: libnfs below, FUSE above, nothing kept in
 * between. For tests: one thread, one user, no locks.
 *
 *   mount nfs://127.0.0.1/EXPORT?nfsport=N&mountport=N MOUNTPOINT          ends when it is unmounted
 */
#define FUSE_USE_VERSION 31
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <nfsc/libnfs.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

static struct nfs_context *nfs;

static void *begin(struct fuse_conn_info *connection, struct fuse_config *config) {
  (void)connection;
  config->attr_timeout = config->entry_timeout = config->negative_timeout = 0;
  config->direct_io = 1;
  config->hard_remove = 1;
  return NULL;
}

static int stat_of(const char *path, struct stat *out, struct fuse_file_info *file) {
  (void)file;
  struct nfs_stat_64 in;
  int error = nfs_lstat64(nfs, path, &in);
  if (error < 0) return error;
  memset(out, 0, sizeof *out);
  out->st_ino = in.nfs_ino;
  out->st_mode = (mode_t)in.nfs_mode;
  out->st_nlink = in.nfs_nlink;
  out->st_uid = (uid_t)in.nfs_uid;
  out->st_gid = (gid_t)in.nfs_gid;
  out->st_size = (off_t)in.nfs_size;
  out->st_blksize = (blksize_t)in.nfs_blksize;
  out->st_blocks = (blkcnt_t)((in.nfs_used + 511) / 512);
  out->st_mtim.tv_sec = (time_t)in.nfs_mtime;
  out->st_mtim.tv_nsec = (long)in.nfs_mtime_nsec;
  out->st_ctim.tv_sec = (time_t)in.nfs_ctime;
  out->st_ctim.tv_nsec = (long)in.nfs_ctime_nsec;
  return 0;
}

static int list(const char *path, void *into, fuse_fill_dir_t fill, off_t from, struct fuse_file_info *file,
                enum fuse_readdir_flags flags) {
  (void)from, (void)file, (void)flags;
  struct nfsdir *folder;
  int error = nfs_opendir(nfs, path, &folder);
  if (error < 0) return error;
  for (struct nfsdirent *one; (one = nfs_readdir(nfs, folder)) != NULL;) fill(into, one->name, NULL, 0, 0);
  nfs_closedir(nfs, folder);
  return 0;
}

static int open_file(const char *path, struct fuse_file_info *file) {
  struct nfsfh *opened;
  int error = nfs_open(nfs, path, file->flags & (O_ACCMODE | O_TRUNC), &opened);
  file->fh = error < 0 ? 0 : (uint64_t)(uintptr_t)opened;
  return error < 0 ? error : 0;
}

static int create(const char *path, mode_t mode, struct fuse_file_info *file) {
  struct nfsfh *opened;
  int error = nfs_open2(nfs, path, O_RDWR | O_CREAT | (file->flags & (O_EXCL | O_TRUNC)), (int)mode, &opened);
  file->fh = error < 0 ? 0 : (uint64_t)(uintptr_t)opened;
  return error < 0 ? error : 0;
}

static struct nfsfh *opened(struct fuse_file_info *file) { return (struct nfsfh *)(uintptr_t)file->fh; }

static int read_file(const char *path, char *into, size_t len, off_t at, struct fuse_file_info *file) {
  (void)path;
  return nfs_pread(nfs, opened(file), (uint64_t)at, len, into);
}

static int write_file(const char *path, const char *from, size_t len, off_t at, struct fuse_file_info *file) {
  (void)path;
  return nfs_pwrite(nfs, opened(file), (uint64_t)at, len, (void *)(uintptr_t)from);
}

static int release(const char *path, struct fuse_file_info *file) {
  (void)path;
  return nfs_close(nfs, opened(file));
}

static int sync_file(const char *path, int data, struct fuse_file_info *file) {
  (void)path, (void)data;
  return nfs_fsync(nfs, opened(file));
}

static int cut(const char *path, off_t size, struct fuse_file_info *file) {
  (void)file;
  return nfs_truncate(nfs, path, (uint64_t)size);
}

static int set_mode(const char *path, mode_t mode, struct fuse_file_info *file) {
  (void)file;
  return nfs_chmod(nfs, path, (int)mode);
}

static int set_owner(const char *path, uid_t user, gid_t group, struct fuse_file_info *file) {
  (void)file;
  return nfs_chown(nfs, path, (int)user, (int)group);
}

static int set_times(const char *path, const struct timespec times[2], struct fuse_file_info *file) {
  (void)path, (void)times, (void)file;
  return 0;
}

static int make_folder(const char *path, mode_t mode) { return nfs_mkdir2(nfs, path, (int)mode); }
static int remove_folder(const char *path) { return nfs_rmdir(nfs, path); }
static int remove_file(const char *path) { return nfs_unlink(nfs, path); }

static int move(const char *from, const char *to, unsigned int flags) {
  return flags ? -EINVAL : nfs_rename(nfs, from, to);
}

static int space(const char *path, struct statvfs *out) { return nfs_statvfs(nfs, path, out); }

static const struct fuse_operations OPERATIONS = {
    .init = begin,        .getattr = stat_of,      .readdir = list,       .open = open_file,
    .create = create,     .read = read_file,       .write = write_file,   .release = release,
    .fsync = sync_file,   .truncate = cut,         .chmod = set_mode,     .chown = set_owner,
    .utimens = set_times, .mkdir = make_folder,    .rmdir = remove_folder, .unlink = remove_file,
    .rename = move,       .statfs = space,
};

int main(int count, char **words) {
  if (count != 3) return fprintf(stderr, "mount nfs://... MOUNTPOINT\n"), 2;
  nfs = nfs_init_context();
  struct nfs_url *url = nfs ? nfs_parse_url_dir(nfs, words[1]) : NULL;
  if (!url || nfs_mount(nfs, url->server, url->path) != 0)
    return fprintf(stderr, "%s: %s\n", words[1], nfs ? nfs_get_error(nfs) : "no context"), 1;
  nfs_set_dircache(nfs, 0);
  char *arguments[] = {words[0], "-f", "-s", "-o", "fsname=vmhold-test", words[2], NULL};
  return fuse_main(6, arguments, &OPERATIONS, NULL);
}
