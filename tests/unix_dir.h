// A directory of a test's own, with a path in it for a Unix socket. Include it behind test.h.

#ifndef UNIX_DIR_H
#define UNIX_DIR_H

static char dir[40];  // of this test alone
static char path[64]; // of a socket in it
static char unix_path[80];

static void make_dir(void) {
    strcpy(dir, "/tmp/httpsrv-unix.XXXXXX");
    CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/s", dir);
    snprintf(unix_path, sizeof unix_path, "unix:%s", path);
}

// Nothing may be left in it.
static void remove_dir(void) {
    if (rmdir(dir) != 0) FAIL("%s: %s", dir, strerror(errno));
}

#endif // UNIX_DIR_H
