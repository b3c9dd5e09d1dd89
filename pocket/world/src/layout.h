// Where things stand in a scene's block of floats. scene.py reads these numbers from this file, so
// that the layout is written once.
#pragma once

#define HEAD 128      // floats of the header; a landscape fills 16 to 127 in its own way
#define MATERIAL 12   // color 3, second color 3, pattern, its scale, specular, shininess, metal, glow
#define MAX_MATERIALS 24
#define PRIM 28
#define MAX_PRIMS 96  // three of the most detailed objects; a ray's mask of primitives has 128 bits
#define MAX_SAMPLES 16  // a pixel
#define MATERIALS HEAD
#define PRIMS (HEAD + MATERIAL * MAX_MATERIALS)
#define SCENE_FLOATS (PRIMS + PRIM * MAX_PRIMS)

// header of every scene
#define H_KIND 0   // 0 objects, 1 landscape
#define H_STYLE 1  // position in vocabulary.STYLES
#define H_SEED 2   // whole number below 2^24
// header of a scene of objects
#define H_PRIMS 3
#define H_GLOSS 5
#define H_EYE 16
#define H_RIGHT 19
#define H_UP 22
#define H_FORWARD 25
#define H_TAN 28  // tangent of half the vertical field of view
#define H_GROUND 29
#define H_PLANE 30  // 1: there is a ground at y = 0; 0: the object floats
#define H_GROUND_SCALE 31
#define H_GROUND_A 32
#define H_GROUND_B 35
#define H_LIGHT 40  // direction to the light
#define H_LIGHT_COLOR 43
#define H_AMBIENT 46
#define H_BOUNCE 49
#define H_ZENITH 52
#define H_HORIZON 55
#define H_STARS 58
#define H_HAZE 59
#define H_SOFTNESS 60
#define H_SUN_GLOW 61
#define H_FRAME 64    // of the first object: origin 3, world to object rotation 9, 1 / scale
#define H_FRAME2 80   // of the second
#define H_CENTER 96   // of all objects: center 3, and the radius by which the ground shades
#define H_REACH 100    // nothing of the objects is farther from the center

// grounds, in the order of vocabulary.GROUNDS
#define WHITE 0
#define PLAIN 1
#define GRASS 2
#define SNOW 3
#define SAND 4
#define TABLE 5
#define CHECKER 6
#define MARS 7
#define MOON 8

// a primitive
#define P_BOUND 0  // bounding sphere: center 3, radius, blend included
#define P_TYPE 4
#define P_BLEND 5     // width of the smooth union with what came before in its group; -1: carved away from it
#define P_GROUP 6     // primitives of a group blend; groups are simply united
#define P_MATERIAL 7
#define P_POSITION 8
#define P_ROTATION 11  // world to primitive
#define P_SIZE 20
#define P_THING 24  // 0: of the first object, 1: of the second

#define ELLIPSOID 0  // three radii
#define BOX 1        // three half sizes, rounding
#define CONE 2       // radius below, radius above, half height, rounding; a cylinder where the radii agree
#define CAPSULE 3    // radius at the origin, radius at the end, distance of the end along y
#define TORUS 4      // radius of the ring (around y), radius of the tube
#define DOME 5       // three radii, height below which it is cut off
#define PRISM 6      // half width, height, half length along z, rounding
#define FRILL 7      // radius, half thickness, amplitude, number of waves
#define RIBBED 8     // three radii, number of ribs; 0 ribs: an apple
#define LENS 9       // an ellipsoid that may be thin: its distance is better, so that its shadow is clean
