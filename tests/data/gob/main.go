// Reads a sqlflow.gob from standard input as SQLFlow's own tools do, and prints the statement in it.
package main

import (
	"encoding/gob"
	"fmt"
	"log"
	"os"
)

type model struct {
	workDir     string
	TrainSelect string
}

func main() {
	m := &model{workDir: "untouched"}
	if err := gob.NewDecoder(os.Stdin).Decode(m); err != nil {
		log.Fatal(err)
	}
	fmt.Print(m.TrainSelect)
}
