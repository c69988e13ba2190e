/*
 * Preloaded into the broker under test: syncs of files below a folder are delayed, held back or
 * failed, as a control file says at that moment. Every other call goes through untouched.
 *
 *   SYNC_FAULTS_UNDER    part of the path of the files that are meant, e.g. "/journal/"
 *   SYNC_FAULTS_CONTROL  path of the control file; absent or empty = do nothing
 *
 * The control file's first word and number:
 *   delay MS   each sync takes MS milliseconds longer
 *   hold       each sync waits until the control file says something else; while it waits, there
 *              is a file CONTROL.held
 *   fail N     the N-th sync from the moment this was written, and every one after it, fails with
 *              EIO (N from 1)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef int (*sync_call)(int);

static pthread_mutex_t counting = PTHREAD_MUTEX_INITIALIZER;
static long seen_while_failing = 0;

static void sleep_ms(long ms) {
    struct timespec left = {ms / 1000, (ms % 1000) * 1000000L};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

static int is_meant(int file) {
    const char *under = getenv("SYNC_FAULTS_UNDER");
    char link[64], path[4096];
    ssize_t length;
    if (under == NULL)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return strstr(path, under) != NULL;
}

/* Reads the control file; the word is "" when there is nothing to do. */
static void order(char word[16], long *number) {
    const char *control = getenv("SYNC_FAULTS_CONTROL");
    FILE *file = control == NULL ? NULL : fopen(control, "re");
    word[0] = 0;
    *number = 0;
    if (file == NULL)
        return;
    if (fscanf(file, "%15s %ld", word, number) < 1)
        word[0] = 0;
    fclose(file);
}

static void mark_held(int held) {
    char path[4096];
    snprintf(path, sizeof path, "%s.held", getenv("SYNC_FAULTS_CONTROL"));
    if (held) {
        int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (file >= 0)
            close(file);
    } else {
        unlink(path);
    }
}

/* 0, or the error with which the sync is to fail. */
static int fault(int file) {
    char word[16];
    long number;
    int held = 0, fails = 0;
    if (!is_meant(file))
        return 0;
    order(word, &number);
    while (strcmp(word, "hold") == 0) {
        mark_held(held = 1);
        sleep_ms(2);
        order(word, &number);
    }
    if (held)
        mark_held(0);
    if (strcmp(word, "delay") == 0)
        sleep_ms(number);
    if (strcmp(word, "fail") == 0) {
        pthread_mutex_lock(&counting);
        fails = ++seen_while_failing >= number;
        pthread_mutex_unlock(&counting);
    }
    return fails ? EIO : 0;
}

static int faulty(const char *name, int file) {
    sync_call call = (sync_call)dlsym(RTLD_NEXT, name);
    int error = fault(file);
    if (error != 0) {
        errno = error;
        return -1;
    }
    return call(file);
}

int fsync(int file) { return faulty("fsync", file); }

int fdatasync(int file) { return faulty("fdatasync", file); }
