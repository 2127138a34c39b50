// A directory of a test's own, with a path in it for a Unix socket. Include it behind test.h.

#ifndef UNIX_DIR_H
#define UNIX_DIR_H

static char unix_dir[40];  // of this test alone
static char unix_file[64]; // of a socket in it
static char unix_path[80]; // the same as an address to listen on

static void make_dir(void) {
    strcpy(unix_dir, "/tmp/httpsrv-unix.XXXXXX");
    CHECK(mkdtemp(unix_dir) != NULL);
    snprintf(unix_file, sizeof unix_file, "%s/s", unix_dir);
    snprintf(unix_path, sizeof unix_path, "unix:%s", unix_file);
}

// Nothing may be left in it.
static void remove_dir(void) {
    if (rmdir(unix_dir) != 0) FAIL("%s: %s", unix_dir, strerror(errno));
}

#endif // UNIX_DIR_H
